"""Servers that speak OpenAI's language with an accent: what they stream is captured whole, and once."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from fake_llm import FakeLLM, said
from openai import OpenAI
from remembering_shelf import Shelf

from openproto import Memory
from openproto.integrations.llm import CaptureQueue, wrap
from openproto.integrations.llm.dialect import Reply
from openproto.integrations.llm.openai import ChatCompletions

WORDS = ["You ", "like ", "tea."]


def chunks(**how: Any) -> list[Any]:
    """A stream of `WORDS`; each keyword makes a field of the choice, or the id, from the chunk's number."""
    made = []
    number, name = how.get("index", lambda n: 0), how.get("id", lambda n: "r1")
    for n, word in enumerate([*WORDS, None]):
        fields = {"delta": SimpleNamespace(content=word)} if word else {"delta": None, "finish_reason": "stop"}
        choice = SimpleNamespace(**{"index": number(n), "finish_reason": None, **fields})
        made.append(SimpleNamespace(id=name(n), choices=[choice]))
    return made


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"index": lambda n: None},
        {"index": lambda n: n},
        {"index": lambda n: 7},
        {"id": lambda n: f"r{n}"},
        {"id": lambda n: None},
    ],
    ids=["usual", "no-index", "growing-index", "another-index", "growing-id", "no-id"],
)
def test_a_stream_is_heard_whole_however_its_chunks_are_numbered(how: dict[str, Any]) -> None:
    reply = Reply()
    for chunk in chunks(**how):
        ChatCompletions().feed(chunk, reply)
    assert (reply.text, reply.complete) == ("You like tea.", True)


def test_of_several_choices_that_were_asked_for_the_first_counts() -> None:
    reply = Reply(choices=2)
    for pair in zip(chunks(), chunks(index=lambda n: 1), strict=True):
        for chunk in pair:
            ChatCompletions().feed(chunk, reply)
    assert reply.text == "You like tea."


def test_words_with_control_characters_and_blank_tails_are_stored_and_searched_with(
    llm: FakeLLM, gpt: OpenAI, memory: Memory, shelf: Shelf
) -> None:
    client = wrap(gpt, memory, user_id="ada")
    for text in ("I like\0 tea", "I like coffee" + " " * 4_000):
        client.chat.completions.create(**said(text))
    assert CaptureQueue.of(memory).wait(5)
    kept = [text.strip() for text in shelf.contents("ada") if not text.startswith("You said")]
    assert kept == ["I like tea", "I like coffee"]
    assert [query.query for query in shelf.queries] == ["I like tea", "I like coffee"]
    stats = CaptureQueue.of(memory).stats()
    assert (stats.stored, stats.recalled, stats.failed) == (2, 2, 0)


def test_turns_of_one_conversation_know_each_other(llm: FakeLLM, gpt: OpenAI, memory: Memory, shelf: Shelf) -> None:
    client = wrap(gpt, memory, user_id="ada")
    messages: list[Any] = []
    for text in ("I like tea", "I live in Oslo"):
        messages.append({"role": "user", "content": text})
        reply = client.chat.completions.create(model="m", messages=messages).choices[0].message
        messages.append({"role": "assistant", "content": reply.content})
        assert CaptureQueue.of(memory).wait(5)
    client.chat.completions.create(**said("I have a cat"))
    assert CaptureQueue.of(memory).wait(5)
    places: list[Any] = [record.extensions["x-openproto"] for record in shelf.kept.values()]
    assert [place["turn"] for place in places] == [0, 1, 2, 3, 0, 1]
    names = [place["conversation"] for place in places]
    assert (len(set(names[:4])), names[4] == names[5], len(set(names))) == (1, True, 2)
