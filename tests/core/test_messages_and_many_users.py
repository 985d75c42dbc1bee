"""Chat messages as input, and one query for many users."""

from __future__ import annotations

from typing import Any

import pytest
from fake_provider import FakeProvider

from openproto import AsyncMemory, InvalidRequestError, Memory

CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "I like tea"}, {"type": "image_url", "image_url": {}}]},
    {"role": "assistant", "content": None, "tool_calls": []},
    {"role": "assistant", "content": "Noted."},
]
TEXT = "system: Be brief.\nuser: I like tea\nassistant: Noted."


@pytest.mark.promise(101)
def test_messages_become_one_line_each_also_in_batches() -> None:
    provider = FakeProvider()
    with Memory(provider) as memory:
        memory.add(CHAT, user_id="ada")
        memory.add_many([{"content": CHAT, "user_id": "ada"}])
    assert [item.content for item in provider.inputs] == [TEXT, TEXT]


@pytest.mark.parametrize(
    "content",
    [
        *([], [{"role": "user", "content": ""}], [{"role": "user"}], [{"content": "no role"}], ["just text"]),
        *([{"role": "user", "content": 3}], [{"role": 1, "content": "x"}], 3, None),
    ],
)
async def test_what_is_not_a_list_of_messages_is_refused(content: Any) -> None:
    provider = FakeProvider()
    async with AsyncMemory(provider) as memory:
        with pytest.raises(InvalidRequestError):
            await memory.add(content, user_id="ada")
    assert provider.calls == []


@pytest.mark.promise(59)
async def test_one_query_for_many_users_answers_each_once_in_order_and_bounds_the_searches() -> None:
    provider = FakeProvider()
    users = [f"user{number}" for number in range(30)]
    async with AsyncMemory(provider) as memory:
        found = await memory.search_many([*users, users[0]], "tea", scope="work", limit=3, concurrency=4)
    assert list(found) == users
    assert all(results[0].memory.content == "likes tea" for results in found.values())
    assert provider.most_running <= 4
    assert {(request.user_id, request.scope, request.limit) for request in provider.requests} == {
        (user, "work", 3) for user in users
    }
