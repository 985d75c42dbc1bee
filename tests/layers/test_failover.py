"""A fallback next to a primary: reads go on, marked; answers are answers; writes go to the primary alone, and once."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from faulty import Faulty, nothing
from openproto_adapters.sqlite import Sqlite
from waiting import until

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
        marks = [(entry.model_extra or {})["x-fallback"] for entry in await memory.audit("ann")]
        assert {*marks} == {"second"}
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

        async def broken(verb: str, request: Any) -> None:
            raise ProviderError("nonsense")

        primary.act = broken
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
        answers = await asyncio.gather(*(memory.get(id) for _ in range(5)))
        assert [answer.extensions for answer in answers] == [MARK] * 5
        probe.cancel()  # which says nothing about the primary: the next read probes
        with pytest.raises(asyncio.CancelledError):
            await probe
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
