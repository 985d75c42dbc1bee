"""A mirror next to a primary: whatever happens to the mirror, the client, or the process, both end up with the same."""

from __future__ import annotations

import asyncio
import json
import random
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from faulty import Faulty
from mirrored import Pair, plain, write
from waiting import until

from openproto import AsyncMemory, Memory, errors
from openproto.cli.app import run
from openproto.layers.mirroring import applier, journal

kinds = pytest.mark.parametrize("pair", ["restoring", "adding"], indirect=True)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(applier, "LONGEST_WAIT", 0.05)
    monkeypatch.setattr(applier, "FIRST_WAIT", 0.01)
    monkeypatch.setattr(journal, "UNSURE_SECONDS", 0.05)


@pytest.fixture
def pair(tmp_path: Path, request: pytest.FixtureRequest) -> Pair:
    return Pair(tmp_path, getattr(request, "param", "restoring"))


async def down(verb: str, request: Any) -> None:
    if verb in ("open", "add", "restore"):
        raise errors.ProviderUnavailableError("down")


@kinds
async def test_a_mirror_that_was_down_catches_up(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    dice, users, ids = random.Random(7), ["ann", "bob", "eve"], dict[str, list[str]]()

    async def shaky(verb: str, request: Any) -> None:
        if random.random() < 0.03:
            raise dice.choice([errors.RateLimitedError("slower", retry_after=0.01), errors.ProviderError("oops")])

    async def lost_answers(verb: str, request: Any) -> None:
        if verb in ("add", "restore", "delete", "update") and random.random() < 0.03:
            raise errors.ProviderUnavailableError("the answer was lost")

    mirror = Faulty(pair.mirror, down)
    async with pair.client(mirror) as memory:
        for _ in range(80):
            await write(memory, dice, users, ids)
        status = pair.status()
        assert (status.state, status.error, status.applied) == ("failing", "provider_unavailable", 0)
        assert status.backlog > 80
    assert mirror.calls["add"] + mirror.calls["restore"] == 0  # it never opened
    mirror = Faulty(pair.mirror, shaky)
    mirror.after = lost_answers
    with monkeypatch.context() as patched:
        patched.setattr(applier, "ATTEMPTS", 1000)
        async with pair.client(mirror) as memory:
            for _ in range(80):
                await write(memory, dice, users, ids)
                await asyncio.sleep(0.001)
            await pair.caught_up()
    async with pair.client() as memory:
        await asyncio.gather(*(write(memory, dice, users, ids) for _ in range(60)), return_exceptions=True)
        await pair.caught_up()
    assert await pair.same(*users) > 20
    status = pair.status()
    assert (status.state, status.refused) == ("in step", {})


CHILD = """
import asyncio, random, sys
from pathlib import Path
sys.path[:0] = sys.argv[4:]
from mirrored import Pair, plain, write
async def main(folder, seed, up):
    memory = await Pair(folder).client(plain(folder / "mirror.db" if up else Path("/dev/null/mirror.db"))).__aenter__()
    dice, ids = random.Random(seed), {}
    async def one(n):
        while True:
            await write(memory, dice, [f"user{n}"], ids)
            print(flush=True)
    await asyncio.gather(*(one(n) for n in range(4)))
asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "True"))
"""


async def test_nothing_is_lost_and_nothing_twice_when_the_process_is_killed(start_python: Any, pair: Pair) -> None:
    for seed in range(3):
        process = start_python(CHILD, pair.folder, seed, seed % 2 == 0, *sys.path)
        for _ in range(random.Random(seed).randrange(20, 150)):
            assert process.stdout.readline() == "\n", process.communicate()[1]
        process.kill()
        process.wait()
    await pair.catch_up()
    assert await pair.same(*(f"user{n}" for n in range(4))) > 20


async def test_calls_go_on_while_it_hangs(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("openproto.layers.mirror.CLOSING_SECONDS", 0.05)
    reached = asyncio.Event()

    async def hang(verb: str, request: Any) -> None:
        if verb == "restore":
            reached.set()
            await asyncio.Event().wait()

    async with pair.client(Faulty(pair.mirror, hang)) as memory:
        first = await memory.add("tea", user_id="ann")
        await reached.wait()
        await memory.update(first.id, content="coffee")
        assert (await memory.get(first.id)).content == "coffee"
        assert [hit.memory.id for hit in await memory.search("coffee", "ann")] == [first.id]
        assert int((await memory._session.provider.describe())["mirror backlog"]) >= 2
    assert "entries are left in the journal" in caplog.text
    await pair.catch_up()
    assert await pair.same("ann") == 1


@kinds
async def test_a_refused_record_waits_for_a_change(pair: Pair, caplog: pytest.LogCaptureFixture) -> None:
    async def refuse(verb: str, request: Any) -> None:
        records = request if verb == "restore" else [request] if verb == "add" else []
        if any(record.confidence == 0.25 for record in records):
            raise errors.UnsupportedCapabilityError("cannot keep 'confidence'")

    mirror = Faulty(pair.mirror, refuse)
    async with pair.client(mirror) as memory:
        record = await memory.add("secret tea", user_id="ann", confidence=0.25)
        await memory.add("coffee", user_id="ann")
        await pair.caught_up()
        assert (pair.status().state, pair.status().refused) == ("different", {"unsupported_capability": 1})
        assert (record.id in caplog.text, "secret" in caplog.text) == (True, False)
        calls = mirror.calls["add"] + mirror.calls["restore"]
        await memory.add("milk", user_id="ann")
        await pair.caught_up()
        assert mirror.calls["add"] + mirror.calls["restore"] == calls + 1
        await memory.update(record.id, confidence=0.5)
        await pair.caught_up()
    assert pair.status().state == "in step"
    assert await pair.same("ann") == 3


@kinds
async def test_what_a_record_released_before_it_was_deleted_is_current_at_the_mirror(pair: Pair) -> None:
    async with pair.client() as memory:
        old = await memory.add("tea", user_id="ann")
        new = await memory.add("rum", user_id="ann", supersedes=[old.id])
        kept = await memory.add("gin", user_id="ann")
        gone = await memory.add("ale", user_id="ann", supersedes=[kept.id])
        await pair.caught_up()
    async with pair.client(Faulty(pair.mirror, down)) as memory:
        await memory.update(new.id, supersedes=None)
        await memory.delete(new.id)
        await memory.delete(gone.id)
    await pair.catch_up()
    assert await pair.same("ann") == 2
    async with AsyncMemory(pair.mirror) as memory:
        assert [record.content async for record in memory.iter("ann", as_of=datetime.now(UTC))] == ["tea"]


@kinds
async def test_what_comes_back_as_anothers_is_no_longer_the_first_ones(pair: Pair) -> None:
    async with pair.client() as memory:
        record = await memory.add("tea", user_id="ann")
        await pair.caught_up()
    async with pair.client(Faulty(pair.mirror, down)) as memory:
        await memory.delete(record.id)
        await memory.restore([record.model_copy(update={"user_id": "bob"})])
    await pair.catch_up()
    assert [await pair.same(user) for user in ("ann", "bob")] == [0, 1]


async def test_a_key_is_free_though_what_bears_it_at_the_mirror_was_removed_by_another_client(pair: Pair) -> None:
    async with pair.client() as memory:
        old = await memory.add("tea", user_id="ann", key="drink")
        await pair.caught_up()
    async with AsyncMemory(plain(pair.folder / "primary.db")) as alone:  # its journal is lost, or waits somewhere else
        await alone.delete(old.id)
    async with pair.client() as memory:
        await memory.add("rum", user_id="ann", key="drink")
        await pair.caught_up()
    assert (pair.status().refused, await pair.same("ann")) == ({}, 1)


async def test_a_write_that_was_refused_while_the_journal_is_read_is_not_counted_twice(pair: Pair) -> None:
    async with pair.client() as memory:
        for _ in range(50):
            found = await asyncio.gather(
                *(memory.add("tea", user_id="ann") for _ in range(4)),
                *(memory.delete(f"none-{n}", user_id="ann") for n in range(20)),
                return_exceptions=True,
            )
            assert sum(isinstance(each, errors.NotFoundError) for each in found) == 20
            await asyncio.sleep(0.01)
        await pair.caught_up()
        assert (await memory._session.provider.describe())["mirror backlog"] == "0"


async def test_a_write_that_failed_after_it_happened_reaches_the_mirror_too(pair: Pair) -> None:
    primary = Faulty(plain(pair.folder / "primary.db"))

    async def lost(verb: str, request: Any) -> None:
        if verb in ("add", "put", "delete"):
            raise errors.ProviderUnavailableError("the answer was lost")

    async with pair.client(primary=primary) as memory:
        one, _ = [await memory.add(text, user_id="ann") for text in ("one", "two")]
        primary.after = lost
        for call in (
            memory.add("tea", user_id="ann"),
            memory.add("milk", user_id="ann", idempotency_key="mine"),
            memory.put("rum", user_id="ann", key="drink"),
            memory.delete(one.id),
        ):
            with pytest.raises(errors.ProviderUnavailableError):
                await call
        await pair.caught_up()
    assert await pair.same("ann") == 4


async def test_clients_share_a_journals_name_and_take_over_what_others_left(pair: Pair) -> None:
    broken = [pair.client(plain(Path("/dev/null/mirror.db"))) for _ in range(3)]
    await asyncio.gather(*(client.add(f"note {n}", user_id="ann") for n, client in enumerate(broken)))
    for client in broken:
        await client.aclose()
    assert (pair.status().journals, pair.status().backlog) == (3, 3)
    await pair.catch_up()
    assert await pair.same("ann") == 3


async def test_a_sampled_read_tells_of_a_difference(
    pair: Pair, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    async with pair.client(sample=1.0) as memory:
        record = await memory.add("secret tea", user_id="ann", scope="a")
        await pair.caught_up()
        await memory.get(record.id)
        await until(lambda: pair.status().samples == 1)
        assert pair.status().differences == 0
        async with AsyncMemory(pair.mirror) as other:
            await other.update(record.id, scope="elsewhere", content="secret rum")
        await memory.list("ann")
        await until(lambda: pair.status().samples == 2)
        assert f"differs in content, scope, updated_at; id {record.id}" in caplog.text
        assert "secret" not in caplog.text
    assert await asyncio.to_thread(run, ["mirror", "status", "--journal", str(pair.journal), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["state"], told["samples"], told["differences"], told["backlog"]) == ("different", 2, 1, 0)


def test_the_synchronous_client_and_the_environment_have_mirrors_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("OPENPROTO_PATH", str(tmp_path / "primary.db"))
    monkeypatch.setenv("OPENPROTO_EMBEDDER", "none")
    assert run(["mirror", "status"]) == 2  # there is no mirror
    mirror = {"provider": "sqlite", "path": str(tmp_path / "mirror.db"), "embedder": "none"}
    monkeypatch.setenv("OPENPROTO_MIRROR", json.dumps(mirror))
    with Memory.from_env() as memory:
        record = memory.add("tea", user_id="ann")
    with Memory("sqlite", path=tmp_path / "mirror.db", embedder="none") as other:
        assert other.get(record.id).content == "tea"  # closing waited
        assert run(["backup", str(tmp_path / "package")]) == 0
        with Memory.from_env() as memory:
            memory.delete(record.id)
        assert run(["restore", str(tmp_path / "package"), "--include-deleted"]) == 0
        assert other.get(record.id).created_at == record.created_at
    assert run(["mirror", "status"]) == 0
    assert "in step" in capsys.readouterr().out
    monkeypatch.setenv("OPENPROTO_MIRROR", "mem0")
    with pytest.raises(ValueError, match="OPENPROTO_MIRROR must be a JSON object"):
        Memory.from_env()
    for wrong, error in (({"path": "x"}, TypeError), ({**mirror, "sample": 2}, ValueError), ("mem0", TypeError)):
        with pytest.raises(error):
            Memory("sqlite", mirror=wrong)  # type: ignore[arg-type]
