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
from openproto.layers.failover import Breaker, FailingOver


async def down(verb: str, request: Any) -> None:
    raise ProviderUnavailableError("down")


def store(folder: Path, name: str) -> Faulty:
    inner = Sqlite(folder / f"{name}.db", embedder="none", synchronous="normal")
    inner.name = name
    return Faulty(inner)


async def two(folder: Path) -> tuple[Faulty, Faulty]:
    """Return two stores with the same three records and one more in the second."""
    primary, second = store(folder, "primary"), store(folder, "second")
    async with AsyncMemory(primary.fresh()) as one, AsyncMemory(second.fresh()) as other:
        for n in range(3):
            await one.add(f"tea {n}", user_id="ann", scope="kitchen", key=f"k{n}")
        await other.restore([record async for record in one.iter("ann")])
        await other.add("only in the second", user_id="ann")
    return primary, second


async def test_while_the_primary_is_down_every_read_is_answered_by_the_fallback_and_says_so(tmp_path: Path) -> None:
    primary, second = await two(tmp_path)
    async with AsyncMemory(primary, fallback={"provider": second, "after": 30}, retries=2) as memory:
        page = await memory.list("ann")
        assert len(page) == 3
        assert "x-fallback" not in page.model_dump_json()
        id = page[0].id
        primary.act = down
        assert (await memory.get(id)).extensions == {"x-fallback": "second"}
        assert (await memory.get(key="k0", user_id="ann")).extensions == {"x-fallback": "second"}
        found = await memory.search("tea", "ann")
        assert [hit.memory.extensions for hit in found] == [{"x-fallback": "second"}] * 3
        assert (await memory.context("tea", "ann")).model_extra == {"x-fallback": "second"}
        assert [count.model_extra for count in await memory.scopes("ann")] == [{"x-fallback": "second"}]
        assert (await memory.users()).model_extra == {"x-fallback": "second"}
        assert {entry.model_extra["x-fallback"] for entry in await memory.audit("ann") if entry.model_extra} == {
            "second"
        }
        first = await memory.list("ann", limit=3)
        assert (len(first), first.model_extra) == (3, {"x-fallback": "second"})
        with pytest.raises(NotFoundError) as caught:
            await memory.get("no such id")
        assert caught.value.provider == "second"
        primary.act = nothing  # a listing goes on where it began, also when the primary is back
        rest = await memory.list("ann", limit=3, cursor=first.next_cursor)
        assert (len(rest), rest.next_cursor, rest.model_extra) == (1, None, {"x-fallback": "second"})


async def test_an_answer_of_the_primary_is_never_replaced(tmp_path: Path) -> None:
    primary, second = await two(tmp_path)
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


async def test_writes_go_to_the_primary_alone_and_are_not_repeated(tmp_path: Path) -> None:
    primary, second = await two(tmp_path)
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


async def test_the_circuit_opens_probes_one_read_at_a_time_and_closes_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    primary, second = await two(tmp_path)
    async with AsyncMemory(primary, fallback=second) as memory:
        id = (await memory.list("ann"))[0].id
        primary.act = down
        for _ in range(failover.FAILURES):
            await memory.get(id)
        asked = primary.calls["get"]
        await asyncio.gather(*(memory.get(id) for _ in range(20)))
        assert primary.calls["get"] == asked  # left alone
        layer = memory._session.provider
        assert isinstance(layer, FailingOver)
        breaker = layer._breaker
        assert breaker is not None
        breaker._probe_at = 0.0
        gate, reached = asyncio.Event(), asyncio.Event()

        async def wait(verb: str, request: Any) -> None:
            reached.set()
            await gate.wait()

        primary.act = wait
        probe = asyncio.create_task(memory.get(id))
        await reached.wait()
        answers = await asyncio.gather(*(memory.get(id) for _ in range(5)))
        assert [answer.extensions for answer in answers] == [{"x-fallback": "second"}] * 5
        probe.cancel()  # which says nothing about the primary: the next read probes
        with pytest.raises(asyncio.CancelledError):
            await probe
        gate.set()
        assert (await memory.get(id)).extensions == {}
        assert not breaker.is_open


async def test_a_primary_that_hangs_is_given_up_after_its_time(tmp_path: Path) -> None:
    primary, second = await two(tmp_path)
    async with AsyncMemory(primary, fallback={"provider": second, "after": 0.05}) as memory:
        id = (await memory.list("ann"))[0].id
        ended = asyncio.Event()

        async def hang(verb: str, request: Any) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

        primary.act = hang
        assert (await memory.get(id)).extensions == {"x-fallback": "second"}
        assert ended.is_set()


def test_the_synchronous_client_opens_on_the_fallback_and_finds_the_primary_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failover, "PROBE_SECONDS", 0.01)
    primary, second = asyncio.run(two(tmp_path))
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


def test_a_breaker_counts_outages_in_a_row() -> None:
    now = [0.0]
    breaker = Breaker(lambda: now[0])
    for _ in range(failover.FAILURES - 1):
        assert breaker.admits()
        breaker.failed()
    breaker.succeeded()
    for _ in range(failover.FAILURES):
        assert breaker.admits()
        breaker.failed()
    assert not breaker.admits()
    now[0] += failover.PROBE_SECONDS
    assert (breaker.admits(), breaker.admits()) == (True, False)
    breaker.failed()
    assert not breaker.admits()
    now[0] += failover.PROBE_SECONDS
    assert breaker.admits()
    breaker.succeeded()
    assert (breaker.admits(), breaker.admits()) == (True, True)
