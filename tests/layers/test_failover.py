"""A fallback next to a primary, which answers reads while that is down; a reranker, which reorders what was found."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock

import pytest
from faulty import Faulty, nothing
from openproto_adapters.sqlite import Sqlite
from waiting import cancelled, until

from openproto import AsyncMemory, Memory, NotFoundError, ProviderError, ProviderUnavailableError
from openproto.layers import failover
from openproto.layers.failover import FailingOver


async def down(verb: str, request: Any) -> None:
    raise ProviderUnavailableError("down")


def store(folder: Path, name: str) -> Faulty:
    inner = Sqlite(folder / f"{name}.db", embedder="none", synchronous="normal")
    inner.name = name
    return Faulty(inner)


@pytest.fixture
def primary(tmp_path: Path) -> Faulty:
    return store(tmp_path, "primary")


@pytest.fixture
def second(tmp_path: Path, primary: Faulty) -> Faulty:
    """A store with the same three records as the primary, and one more."""
    made = store(tmp_path, "second")
    with Memory(primary.fresh()) as one, Memory(made.fresh()) as other:
        for n in range(3):
            one.add(f"tea {n}", user_id="ann", scope="kitchen", key=f"k{n}")
        other.restore([*one.iter("ann")])
        other.add("only in the second", user_id="ann")
    return made


MARK = {"x-fallback": "second"}


async def test_while_the_primary_is_down_the_fallback_answers_every_read(primary: Faulty, second: Faulty) -> None:
    async with AsyncMemory(primary, fallback={"provider": second, "after": 30}, retries=2) as memory:
        page = await memory.list("ann")
        assert len(page) == 3
        assert "x-fallback" not in page.model_dump_json()
        primary.act = down
        assert (await memory.get(page[0].id)).extensions == MARK
        assert (await memory.get(key="k0", user_id="ann")).extensions == MARK
        assert [hit.memory.extensions for hit in await memory.search("tea", "ann")] == [MARK] * 3
        assert (await memory.context("tea", "ann")).model_extra == MARK
        assert [count.model_extra for count in await memory.scopes("ann")] == [MARK]
        assert (await memory.users()).model_extra == MARK
        assert {(entry.model_extra or {})["x-fallback"] for entry in await memory.audit("ann")} == {"second"}
        first = await memory.list("ann", limit=3)
        assert (len(first), first.model_extra) == (3, MARK)
        with pytest.raises(NotFoundError) as caught:
            await memory.get("no such id")
        assert caught.value.provider == "second"
        primary.act = nothing  # a listing goes on where it began, also when the primary is back
        rest = await memory.list("ann", limit=3, cursor=first.next_cursor)
        assert (len(rest), rest.next_cursor, rest.model_extra) == (1, None, MARK)


async def test_an_answer_of_the_primary_is_never_replaced(primary: Faulty, second: Faulty) -> None:
    async with AsyncMemory(second.fresh()) as other:
        only = (await other.list("ann"))[0]
    async with AsyncMemory(primary, fallback=second) as memory:
        for _ in range(failover.FAILURES + 1):
            with pytest.raises(NotFoundError):
                await memory.get(only.id)
        page = await memory.list("ann", limit=1)

        primary.act = AsyncMock(side_effect=ProviderError("nonsense"))
        with pytest.raises(ProviderError, match="nonsense"):
            await memory.get(only.id)
        primary.act = down
        with pytest.raises(ProviderUnavailableError, match="only it can go on with this listing"):
            await memory.list("ann", limit=1, cursor=page.next_cursor)
        second.act = down
        with pytest.raises(ProviderUnavailableError, match="neither did"):
            await memory.get(only.id)
    assert (second.calls["list"], second.calls["add"]) == (0, 0)


async def test_writes_go_to_the_primary_alone_and_are_not_repeated(primary: Faulty, second: Faulty) -> None:
    async with AsyncMemory(primary, fallback=second, retries=0) as memory:
        id = (await memory.list("ann"))[0].id
        primary.act = down
        before = primary.calls.copy()
        for verb, call in {
            "add": memory.add("new", user_id="ann"),
            "update": memory.update(id, content="changed"),
            "put": memory.put("named", user_id="ann", key="k0"),
            "delete": memory.delete(id),
            "delete_all": memory.delete_all("ann"),
        }.items():
            with pytest.raises(ProviderUnavailableError, match="down"):
                await call
            assert primary.calls[verb] == before[verb] + 1
    assert set(second.calls) == {"open"}


async def test_the_circuit_opens_probes_one_read_at_a_time_and_closes_again(primary: Faulty, second: Faulty) -> None:
    async with AsyncMemory(primary, fallback=second) as memory:
        id = (await memory.list("ann"))[0].id
        layer = memory._session.provider
        assert isinstance(layer, FailingOver)
        breaker = layer._breaker
        assert breaker is not None

        async def outages(number: int) -> int:
            """Return how many of so many reads the primary was asked for."""
            primary.act, before = down, primary.calls["get"]
            for _ in range(number):
                assert (await memory.get(id)).extensions == MARK
            primary.act = nothing
            return primary.calls["get"] - before

        assert await outages(failover.FAILURES - 1) == failover.FAILURES - 1
        assert (await memory.get(id)).extensions == {}  # only outages in a row count
        assert await outages(failover.FAILURES + 3) == failover.FAILURES
        breaker._probe_at = 0.0
        assert await outages(3) == 1  # a probe that fails
        breaker._probe_at = 0.0
        gate, reached = asyncio.Event(), asyncio.Event()

        async def wait(verb: str, request: Any) -> None:
            reached.set()
            await gate.wait()

        primary.act = wait
        probe = asyncio.create_task(memory.get(id))
        await reached.wait()
        assert [answer.extensions for answer in await asyncio.gather(*(memory.get(id) for _ in range(5)))] == [MARK] * 5
        assert await cancelled(probe)  # which says nothing about the primary: the next read probes
        gate.set()
        assert (await memory.get(id)).extensions == {}
        assert not breaker.is_open


async def test_a_primary_that_hangs_is_given_up_after_its_time(primary: Faulty, second: Faulty) -> None:
    async with AsyncMemory(primary, fallback={"provider": second, "after": 0.05}) as memory:
        id = (await memory.list("ann"))[0].id
        ended = asyncio.Event()

        async def hang(verb: str, request: Any) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

        primary.act = hang
        assert (await memory.get(id)).extensions == MARK
        assert ended.is_set()


def test_memory_opens_on_the_fallback(primary: Faulty, second: Faulty, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failover, "PROBE_SECONDS", 0.01)
    primary.act = down
    with Memory(primary, fallback=second, retries=0) as memory:
        assert len(memory.list("ann")) == 4
        with pytest.raises(ProviderUnavailableError, match="could not be opened yet"):
            memory.add("new", user_id="ann")
        primary.act = nothing
        asyncio.run(until(lambda: memory.list("ann").model_extra == {}))
        memory.add("new", user_id="ann")
        assert len(memory.list("ann")) == 4
    with pytest.raises(ProviderUnavailableError):
        Memory(Faulty(primary.fresh(), down), fallback=Faulty(second.fresh(), down), retries=0).__enter__()


class ByLength:
    """Prefers short texts; is late, gives too few scores, or fails, where the test wants it."""

    timeout = 0.05

    def __init__(self, seconds: float = 0.0, answers: int = 3, error: Exception | None = None) -> None:
        self.seconds, self.answers, self.error = seconds, answers, error

    def rerank(self, query: str, texts: Sequence[str]) -> list[float]:
        time.sleep(self.seconds)
        if self.error:
            raise self.error
        return [-float(len(text)) for text in texts[: self.answers]]


class ByLengthLater:
    async def rerank(self, query: str, texts: Sequence[str]) -> list[float]:
        await asyncio.sleep(0)
        return [-len(text) for text in texts]


TEXTS = ["green tea with a lot of honey", "tea", "green tea"]


async def found(path: Path, reranker: Any) -> tuple[list[str], list[float], str]:
    async with AsyncMemory("sqlite", path=path, embedder="none", rerank=reranker) as memory:
        await memory.add_many([{"content": text, "user_id": "ada"} for text in TEXTS])
        results = await memory.search("green tea honey", "ada")
        block = await memory.context("green tea honey", "ada", token_budget=200)
        told = await memory.search("green tea honey", "ada", explain=True)
        assert [(hit.memory, hit.score) for hit in told] == [(hit.memory, hit.score) for hit in results]
        assert [sum((hit.parts or {}).values()) for hit in told] == pytest.approx([hit.score for hit in results])
    return [result.memory.content for result in results], [result.score for result in results], block.text


@pytest.mark.parametrize("reranker", [ByLength(), ByLengthLater()], ids=["plain", "async"])
async def test_the_first_hits_stand_in_the_rerankers_order(tmp_path: Path, reranker: Any) -> None:
    contents, scores, block = await found(tmp_path / "memory.db", reranker)
    assert contents == ["tea", "green tea", TEXTS[0]]
    assert scores == sorted(scores, reverse=True)
    assert block.startswith("tea [")


@pytest.mark.parametrize("reranker", [ByLength(0.3), ByLength(answers=1), ByLength(error=KeyError("secret"))])
async def test_a_late_or_broken_one_is_left(tmp_path: Path, reranker: Any, caplog: pytest.LogCaptureFixture) -> None:
    contents, scores, _ = await found(tmp_path / "memory.db", reranker)
    assert contents[0] == TEXTS[0]
    assert scores == sorted(scores, reverse=True)
    assert caplog.text.count("the reranker is left out") == 1
    assert "secret" not in caplog.text


def test_a_name_or_anything_else_is_refused() -> None:
    for wrong in ("cohere", object()):
        with pytest.raises(ValueError, match=r"rerank must be an object with rerank\(query, texts\)"):
            Memory("sqlite", rerank=wrong)  # type: ignore[arg-type]
