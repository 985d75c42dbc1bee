"""What of a turn is kept: statements and no questions, what people write and no control characters, no echoes."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from fake_llm import say
from openai import AsyncOpenAI

from openproto import AsyncMemory
from openproto.integrations.llm import CaptureQueue, wrap
from openproto.integrations.llm.sifting import clean, statements
from openproto.integrations.llm.turns import Turn, kept_of


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("I am allergic to nuts.", "I am allergic to nuts."),
        ("What do you remember about me", ""),
        ("Plan my dinner", ""),
        ("I wonder what you know about me", ""),
        ("Thanks, that's great!", ""),
        ("I moved to Oslo. What's the weather like?", "I moved to Oslo."),
        ("Can you recommend a restaurant, I'm vegetarian?", "I'm vegetarian"),
        ("My version is 3.2, see ada@example.org.", "My version is 3.2, see ada@example.org."),
        ("Make-up is my hobby", "Make-up is my hobby"),
        ("Ik woon in Utrecht. Waar woon ik?", "Ik woon in Utrecht."),
        ("¿Dónde vivo? Vivo en Lima.", "Vivo en Lima."),
        ("我住在北京。你知道我住在哪里吗？", "我住在北京。"),
        ("私は東京に住んでいます。どこに住んでいますか。", "私は東京に住んでいます。"),
        ("أنا أسكن في القاهرة. أين أسكن؟", "أنا أسكن في القاهرة."),
        ("Ζω στην Αθήνα. Πού ζω;", "Ζω στην Αθήνα."),
    ],
)
def test_what_states_something_is_kept_and_what_asks_is_not(text: str, kept: str) -> None:
    assert statements(text) == kept


def test_control_characters_and_blocks_of_recalled_memories_are_left_out() -> None:
    assert clean("a\0b\x1b\ud800c\n\td") == "abc\n\td"
    assert clean("before <recalled_memories>\nsecret [m1]\n</recalled_memories> after") == "before  after"
    assert clean("before <recalled_memories>\nnever closed") == "before "


@pytest.mark.parametrize(
    "text", ["a" * 90_000, "a.b" * 30_000, "." * 90_000, "α" * 90_000, "please " * 14_000, ", so " * 18_000]
)
def test_the_worst_texts_take_time_in_proportion_to_their_length(text: str) -> None:
    def seconds(text: str) -> float:
        started = time.process_time()
        statements(text + "?")
        return time.process_time() - started

    assert seconds(text) < 40 * max(seconds(text[: len(text) // 8]), 0.005)


def kept(turn: Turn, keep: Any) -> list[tuple[str, list[str]]]:
    return [(item["content"], item["tags"]) for item in kept_of(turn, keep)]


def test_each_way_of_keeping_keeps_what_it_says_and_no_reply_that_repeats_what_was_recalled() -> None:
    turn = Turn("ada", "I like tea. Do you?", "I prefer electricity.", partial=True)
    reply = ("I prefer electricity.", ["assistant", "partial"])
    assert kept(turn, "user") == [("I like tea.", ["user"])]
    assert kept(turn, "both") == [("I like tea. Do you?", ["user"]), reply]
    assert kept(turn, lambda role, text: role == "assistant" and "electricity" in text) == [reply]
    notes = "Ada takes her coffee black [m1]\nAda lives in Oslo [m2]"
    echo = Turn("ada", "How do I like my coffee?", "You take your coffee black, Ada.", recalled=notes)
    assert kept(echo, "both") == [("How do I like my coffee?", ["user"])]
    assert kept(echo, lambda role, text: role == "assistant") == []


async def test_what_was_stated_is_kept_once_in_its_last_spelling(tmp_path: Path, async_gpt: AsyncOpenAI) -> None:
    said = ["My dog is called Bo.", "Tell me a joke", "my dog is  called Bo", "What is my dog called?"]
    said += ["My car is called Ka", "Thanks!", "My dog is called Lu!", "What do you remember about me?"]
    async with AsyncMemory("sqlite", path=tmp_path / "memory.db", embedder="local") as memory:
        queue = CaptureQueue(memory)
        for line in said:
            await say(wrap(async_gpt, queue, user_id="ada"), line)
            assert await queue.flush(60)
        current = [record.content async for record in memory.iter("ada", as_of=datetime.now(UTC))]
        total = len([record async for record in memory.iter("ada")])
    assert sorted(current) == ["My car is called Ka", "My dog is called Lu!", "my dog is  called Bo"]
    assert total == 4
