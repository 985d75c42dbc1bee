"""Two hundred turns with a model on a socket: each fact is there once and as it is now, and nothing else is."""

from __future__ import annotations

import itertools
import random
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from anthropic import AsyncAnthropic
from fake_llm import FakeLLM, Json
from openai import AsyncOpenAI

from openproto import AsyncMemory
from openproto.integrations.llm import CaptureQueue, Turn, facts, wrap

NOUNS = """
    car bike boat cat dog horse parrot rabbit street village school office band team plumber doctor dentist barber
    neighbour landlord
""".split()
NAMES = [a + b for a in ("Bo", "Ka", "Lu", "Mi") for b in ("nara", "delo", "fisk", "rune", "zoya")]
CALLED = re.compile(r"my (\w+) is called (\w+)", re.IGNORECASE)
CHATTER = itertools.cycle(
    ["What do you remember about me?", "Tell me a joke", "Thanks!", "What is my {} called?", "Plan a day for my {}"]
)


def script() -> list[str]:
    """Say of each noun a name, the same once more in another spelling, and then another name; and chatter between."""
    rng = random.Random(7)
    said: list[list[str]] = []
    for noun, first, second in zip(NOUNS, NAMES, NAMES[::-1], strict=True):
        again, changed = f"my {noun} is  called {first}", f"My {noun} is called {second}!"
        said.append([f"My {noun} is called {first}.", again, changed])
    said += [[next(CHATTER).format(rng.choice(NOUNS))] for _ in range(140)]
    order = [n for n, lines in enumerate(said) for _ in lines]
    rng.shuffle(order)
    return [said[n].pop(0) for n in order]


def extract(asked: Json) -> Json:
    """Answer as a model would: what is called how now, as a change where the notes say otherwise."""
    now = {m[1].lower(): m[2] for turn in asked["turns"] for m in CALLED.finditer(turn["user"])}
    notes = {m[1]: (m[2], note["number"]) for note in asked["notes"] if (m := CALLED.search(note["text"]))}
    found: list[Json] = []
    for noun, name in now.items():
        known, number = notes.get(noun, ("", 0))
        if name != known:
            kind, replaces = ("changed", [number]) if known else ("new", [])
            found.append({"text": f"My {noun} is called {name}", "kind": kind, "replaces": replaces})
    return {"facts": found}


async def remembered(path: Path, client: AsyncOpenAI, **options: Any) -> tuple[list[str], int]:
    """Hold the conversation and return what is current in the end, and how many records there are."""
    async with AsyncMemory("sqlite", path=path, embedder="local") as memory:
        queue = CaptureQueue(memory, **options)
        llm = wrap(client, queue, user_id="ada")
        for line in script():
            await llm.chat.completions.create(model="m", messages=[{"role": "user", "content": line}])
        assert await queue.flush(60)
        assert queue.stats().recalled == len(script())
        current = [record.content async for record in memory.iter("ada", as_of=datetime.now(UTC))]
        return sorted(current), len([record async for record in memory.iter("ada")])


async def test_what_was_stated_is_kept_once_in_its_last_spelling(tmp_path: Path, async_gpt: AsyncOpenAI) -> None:
    current, total = await remembered(tmp_path / "memory.db", async_gpt)
    lines = [(m[1], m[2], line) for line in script() if (m := CALLED.search(line.replace("  ", " ")))]
    assert current == sorted({(noun, name): line for noun, name, line in lines}.values())
    assert (len(current), total) == (40, 60)


async def test_with_a_model_each_fact_is_as_it_is_now(
    tmp_path: Path, llm: FakeLLM, async_gpt: AsyncOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llm, "extract", extract)
    current, _ = await remembered(tmp_path / "memory.db", async_gpt, extract=facts(async_gpt, model="small"))
    wanted = (f"My {noun} is called {name}" for noun, name in zip(NOUNS, NAMES[::-1], strict=True))
    assert current == sorted(wanted)


async def test_anthropics_client_is_asked_by_a_tool_within_bounds(tmp_path: Path, llm: FakeLLM) -> None:
    llm.extract = extract
    async with (
        AsyncAnthropic(base_url=llm.url, api_key="k") as client,
        AsyncMemory("sqlite", path=tmp_path / "memory.db", embedder="none", close_timeout=0.2) as memory,
    ):
        extractor = facts(client, model="small", calls_per_minute=2, max_tokens=300)
        queue = CaptureQueue(memory, extract=extractor)
        for name in ("Bo", "Ka"):
            await queue.aput(Turn("ada", f"My dog is called {name}", "I see."))
            assert await queue.flush(10)
        old, new = sorted([record async for record in memory.iter("ada")], key=lambda record: record.created_at)
        assert (old.superseded_by, new.content, new.supersedes) == (new.id, "My dog is called Ka", [old.id])
        assert (extractor.calls, extractor.tokens, extractor.failed) == (2, 4, 0)
        await queue.aput(Turn("ada", "My dog is called Lu", None))
        assert not await queue.flush(1.5)  # the third call of the minute waits
    sent = [request.json for request in llm.requests]
    assert len(sent) == 2
    assert {(body["tool_choice"]["name"], body["max_tokens"]) for body in sent} == {("keep", 300)}
