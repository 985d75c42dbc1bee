"""A mirror next to a primary: whatever happens to the mirror, the client, or the process, both end up with the same."""

from __future__ import annotations

import asyncio
import json
import random
import sys
from pathlib import Path
from typing import Any

import pytest
from dict_vendor import DictVendor
from faulty import Faulty, refusing
from openproto_adapters.sqlite import Sqlite
from waiting import until

from openproto import (
    AsyncMemory,
    Memory,
    Provider,
    ProviderError,
    ProviderUnavailableError,
    RateLimitedError,
    UnsupportedCapabilityError,
)
from openproto.cli.app import run
from openproto.layers.mirroring import applier, journal
from openproto.layers.mirroring.status import mirror_status

COMPARED = ("content", "scope", "tags", "source", "confidence", "valid_from", "valid_to", "key")


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(applier, "LONGEST_WAIT", 0.05)
    monkeypatch.setattr(applier, "FIRST_WAIT", 0.01)
    monkeypatch.setattr(journal, "UNSURE_SECONDS", 0.05)


def plain(path: Path) -> Sqlite:
    return Sqlite(path, embedder="none", synchronous="normal")


def mirrored(folder: Path, mirror: Provider, primary: Provider | None = None, **options: Any) -> AsyncMemory:
    options.setdefault("sample", 0.0)
    options = {"provider": mirror, "journal": folder / "journal.db", **options}
    return AsyncMemory(primary or plain(folder / "primary.db"), mirror=options, retries=0)


async def caught_up(folder: Path) -> None:
    await until(lambda: mirror_status(folder / "journal.db").backlog == 0, 60)


async def state(provider: Provider, users: list[str], *, kept_ids: bool) -> dict[str, Any]:
    """Return all records by the primary's id."""
    found: dict[str, Any] = {}
    async with AsyncMemory(provider) as memory:
        for user in users:
            records = [record async for record in memory.iter(user)]
            made_of: dict[str, Any] = {r.id: r.extensions.get("x-migrated", {"id": r.id}) for r in records}
            origins = {id: str(made["id"]) for id, made in made_of.items()}
            for record in records:
                wire = record.to_wire()
                extensions = {n: v for n, v in record.extensions.items() if n != "x-migrated"}
                one = {name: wire.get(name) for name in COMPARED} | {"extensions": extensions}
                one["supersedes"] = sorted(origins[id] for id in record.supersedes if id in origins)
                if kept_ids:
                    one |= {name: wire.get(name) for name in ("created_at", "updated_at", "superseded_by")}
                assert origins[record.id] not in found, "twice"
                found[origins[record.id]] = one
    return found


async def same(folder: Path, mirror: Provider, users: list[str], *, kept_ids: bool = True) -> int:
    here = await state(plain(folder / "primary.db"), users, kept_ids=kept_ids)
    there = await state(mirror, users, kept_ids=kept_ids)
    assert there == here
    return len(here)


async def write(memory: AsyncMemory, dice: random.Random, users: list[str], ids: dict[str, list[str]]) -> None:
    """Write something, of every kind there is."""
    user = dice.choice(users)
    mine = ids.setdefault(user, [])
    match dice.randrange(10):
        case 0 if mine:
            await memory.update(dice.choice(mine), user_id=user, content=f"changed {dice.random()}", scope="a/b")
        case 1 if mine:
            await memory.delete(mine.pop(dice.randrange(len(mine))), user_id=user)
        case 2:
            text = f"put {dice.random()}"
            record = await memory.put(text, user_id=user, key=f"k{dice.randrange(3)}", tags=["t"], x_note={"n": 1})
            mine[:] = [*{*mine, record.id}]
        case 3 if mine:
            old = dice.choice(mine)
            mine.append((await memory.add(f"newer {dice.random()}", user_id=user, supersedes=[old])).id)
        case 4:
            items = [{"content": f"batch {dice.random()}", "user_id": user} for _ in range(3)]
            mine += [record.id for record in await memory.add_many(items) if not isinstance(record, Exception)]
        case 5 if mine and dice.random() < 0.1:
            await memory.delete_all(user)
            mine.clear()
        case _:
            text, key = f"note {dice.random()}", None if dice.random() < 0.5 else f"once {dice.random()}"
            mine.append((await memory.add(text, user_id=user, idempotency_key=key, confidence=0.5)).id)


@pytest.mark.parametrize("kind", ["restoring", "adding"])
async def test_a_mirror_that_was_down_limited_and_stuck_has_the_same_in_the_end(kind: str, tmp_path: Path) -> None:
    inner = plain(tmp_path / "mirror.db") if kind == "restoring" else DictVendor({})
    mirror = Faulty(inner)
    dice, users, ids = random.Random(7), ["ann", "bob", "eve"], dict[str, list[str]]()

    async def down(verb: str, request: Any) -> None:
        if verb in ("open", "add", "restore"):
            raise ProviderUnavailableError("down")

    async def shaky(verb: str, request: Any) -> None:
        if random.random() < 0.03:
            raise RateLimitedError("slower", retry_after=0.01) if dice.random() < 0.5 else ProviderError("oops")

    async def lost_answers(verb: str, request: Any) -> None:
        if verb in ("add", "restore", "delete", "update") and random.random() < 0.03:
            raise ProviderUnavailableError("the answer was lost")

    mirror.act = down
    async with mirrored(tmp_path, mirror) as memory:
        for _ in range(400):
            await write(memory, dice, users, ids)
        status = mirror_status(tmp_path / "journal.db")
        assert (status.state, status.error, status.applied) == ("failing", "provider_unavailable", 0)
        assert status.backlog > 400
    assert mirror.calls["add"] + mirror.calls["restore"] == 0  # it never opened
    mirror = Faulty(inner, shaky)
    mirror.after = lost_answers
    applier.ATTEMPTS, attempts = 1000, applier.ATTEMPTS
    async with mirrored(tmp_path, mirror) as memory:
        for _ in range(400):
            await write(memory, dice, users, ids)
            await asyncio.sleep(0.001)
        await caught_up(tmp_path)
    applier.ATTEMPTS = attempts
    async with mirrored(tmp_path, inner.fresh()) as memory:
        await asyncio.gather(*(write(memory, dice, users, ids) for _ in range(200)), return_exceptions=True)
        await caught_up(tmp_path)
    assert await same(tmp_path, inner.fresh(), users, kept_ids=kind == "restoring") > 100
    status = mirror_status(tmp_path / "journal.db")
    assert (status.state, status.refused) == ("in step", {})


CHILD = """
import asyncio, random, sys
from pathlib import Path
sys.path[:0] = sys.argv[4:]
from test_mirror import mirrored, plain, write
async def main(folder, seed, up):
    mirror = plain(folder / "mirror.db" if up else Path("/dev/null/mirror.db"))
    memory = await mirrored(folder, mirror).__aenter__()
    dice, ids = random.Random(seed), {}
    async def one(n):
        while True:
            await write(memory, dice, [f"user{n}"], ids)
            print(flush=True)
    await asyncio.gather(*(one(n) for n in range(4)))
asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "True"))
"""


async def test_nothing_is_lost_and_nothing_twice_when_the_process_is_killed(start_python: Any, tmp_path: Path) -> None:
    users = [f"user{n}" for n in range(4)]
    for seed in range(6):
        process = start_python(CHILD, tmp_path, seed, seed % 2 == 0, *sys.path)
        for _ in range(random.Random(seed).randrange(20, 150)):
            assert process.stdout.readline() == "\n", process.communicate()[1]
        process.kill()
        process.wait()
        if seed % 3 == 2:
            async with mirrored(tmp_path, plain(tmp_path / "mirror.db")):
                await caught_up(tmp_path)
            assert await same(tmp_path, plain(tmp_path / "mirror.db"), users) > 20


async def test_calls_go_on_while_the_mirror_hangs_and_closing_leaves_the_rest_for_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("openproto.layers.mirror.CLOSING_SECONDS", 0.05)
    reached = asyncio.Event()

    async def hang(verb: str, request: Any) -> None:
        if verb == "restore":
            reached.set()
            await asyncio.Event().wait()

    async with mirrored(tmp_path, Faulty(plain(tmp_path / "mirror.db"), hang)) as memory:
        first = await memory.add("tea", user_id="ann")
        await reached.wait()
        await memory.update(first.id, content="coffee")
        assert (await memory.get(first.id)).content == "coffee"
        assert [hit.memory.id for hit in await memory.search("coffee", "ann")] == [first.id]
        details = await memory._session.provider.describe()
        assert int(details["mirror backlog"]) >= 2
    assert "entries are left in the journal" in caplog.text
    async with mirrored(tmp_path, plain(tmp_path / "mirror.db")):
        await caught_up(tmp_path)
    assert await same(tmp_path, plain(tmp_path / "mirror.db"), ["ann"]) == 1


@pytest.mark.parametrize("kind", ["restoring", "adding"])
async def test_a_record_that_the_mirror_refuses_is_told_and_not_tried_again_until_it_changes(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    inner = plain(tmp_path / "mirror.db") if kind == "restoring" else DictVendor({})
    refuse = refusing(lambda: UnsupportedCapabilityError("cannot keep 'confidence'"), lambda r: r.confidence == 0.25)
    mirror = Faulty(inner, refuse)
    async with mirrored(tmp_path, mirror) as memory:
        record = await memory.add("secret tea", user_id="ann", confidence=0.25)
        await memory.add("coffee", user_id="ann")
        await caught_up(tmp_path)
        status = mirror_status(tmp_path / "journal.db")
        assert (status.state, status.refused) == ("different", {"unsupported_capability": 1})
        assert record.id in caplog.text
        assert "secret" not in caplog.text
        calls = mirror.calls["add"] + mirror.calls["restore"]
        await memory.add("milk", user_id="ann")
        await caught_up(tmp_path)
        assert mirror.calls["add"] + mirror.calls["restore"] == calls + 1
        await memory.update(record.id, confidence=0.5)
        await caught_up(tmp_path)
    assert mirror_status(tmp_path / "journal.db").state == "in step"
    assert await same(tmp_path, inner.fresh(), ["ann"], kept_ids=kind == "restoring") == 3


async def test_a_write_that_failed_after_it_happened_reaches_the_mirror_too(tmp_path: Path) -> None:
    primary = Faulty(plain(tmp_path / "primary.db"))

    async def lost(verb: str, request: Any) -> None:
        if verb in ("add", "put", "delete"):
            raise ProviderUnavailableError("the answer was lost")

    async with mirrored(tmp_path, plain(tmp_path / "mirror.db"), primary) as memory:
        kept = await memory.add_many([{"content": "one", "user_id": "ann"}, {"content": "two", "user_id": "ann"}])
        primary.after = lost
        for call in (
            memory.add("tea", user_id="ann"),
            memory.add("milk", user_id="ann", idempotency_key="mine"),
            memory.put("rum", user_id="ann", key="drink"),
            memory.delete(kept[0].id),  # type: ignore[union-attr]
        ):
            with pytest.raises(ProviderUnavailableError):
                await call
        await caught_up(tmp_path)
    assert await same(tmp_path, plain(tmp_path / "mirror.db"), ["ann"]) == 4


async def test_a_key_that_another_record_gets_goes_over(tmp_path: Path) -> None:
    mirror = plain(tmp_path / "mirror.db")
    async with mirrored(tmp_path, mirror) as memory:
        old = await memory.put("tea", user_id="ann", key="drink")
        await caught_up(tmp_path)
        async with AsyncMemory(plain(tmp_path / "mirror.db")) as other:
            taken = await other.add("theirs", user_id="ann", key="food")
            await memory.delete(old.id)
            await memory.put("rum", user_id="ann", key="drink")
            await memory.put("bread", user_id="ann", key="food")
            await until(lambda: mirror_status(tmp_path / "journal.db").applied >= 3)
            await other.delete(taken.id)  # as another client's journal may do a little later
        await caught_up(tmp_path)
    assert await same(tmp_path, plain(tmp_path / "mirror.db"), ["ann"]) == 2
    assert mirror_status(tmp_path / "journal.db").state == "in step"


async def test_clients_share_a_journals_name_and_take_over_what_others_left(tmp_path: Path) -> None:
    broken = [mirrored(tmp_path, plain(Path("/dev/null/mirror.db"))) for _ in range(3)]
    await asyncio.gather(*(client.add(f"note {n}", user_id="ann") for n, client in enumerate(broken)))
    for client in broken:
        await client.aclose()
    status = mirror_status(tmp_path / "journal.db")
    assert (status.journals, status.backlog) == (3, 3)
    async with mirrored(tmp_path, plain(tmp_path / "mirror.db")):
        await caught_up(tmp_path)
    assert await same(tmp_path, plain(tmp_path / "mirror.db"), ["ann"]) == 3


async def test_a_sampled_read_tells_of_a_difference_without_its_content(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "journal.db"
    async with mirrored(tmp_path, plain(tmp_path / "mirror.db"), sample=1.0) as memory:
        record = await memory.add("secret tea", user_id="ann", scope="a")
        await caught_up(tmp_path)
        await memory.get(record.id)
        await until(lambda: mirror_status(file).samples == 1)
        assert mirror_status(file).differences == 0
        async with AsyncMemory(plain(tmp_path / "mirror.db")) as other:
            await other.update(record.id, scope="elsewhere", content="secret rum")
        await memory.list("ann")
        await until(lambda: mirror_status(file).samples == 2)
        assert mirror_status(file).differences == 1
        assert f"differs in content, scope, updated_at; id {record.id}" in caplog.text
        assert "secret" not in caplog.text
    assert await asyncio.to_thread(run, ["mirror", "status", "--journal", str(file), "--json"]) == 1
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
    with Memory("sqlite", path=tmp_path / "mirror.db", embedder="none") as other:
        assert other.get(record.id).created_at == record.created_at
    assert run(["mirror", "status"]) == 0
    assert "in step" in capsys.readouterr().out
    monkeypatch.setenv("OPENPROTO_MIRROR", "mem0")
    with pytest.raises(ValueError, match="OPENPROTO_MIRROR must be a JSON object"):
        Memory.from_env()
    for wrong, error in (({"path": "x"}, TypeError), ({**mirror, "sample": 2}, ValueError), ("mem0", TypeError)):
        with pytest.raises(error):
            Memory("sqlite", mirror=wrong)  # type: ignore[arg-type]
