"""Whole stores moved: everything equal on both sides, whatever interrupts, and taken back without a trace."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from openproto import AsyncMemory
from openproto.portable.bringing import Result
from openproto.portable.journal import open_journal
from openproto.portable.matching import Matching
from openproto.portable.migrate import Migration, Undone, undo
from openproto.portable.surveying import HISTORY, survey, users_of
from openproto.server import ServerSettings, create_app, running

USERS = ("ada", "bob", "eve")
PAST, FUTURE = datetime(2020, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)


def quiet(done: int, total: int | None) -> None:
    pass


async def moved(source: AsyncMemory, target: AsyncMemory, report: Path) -> Result:
    """Do what one run of the command does, between two stores."""
    plan = await survey(source, target, await users_of(source), quiet)
    assert not plan.cannot_keep
    file, journal = open_journal(report, {})
    with file:
        return await Migration(source, target, plan, journal, Matching("here")).run(quiet)


async def undone(target: AsyncMemory, report: Path) -> Undone:
    file, journal = open_journal(report, {})
    with file:
        return await undo(target, journal, Matching("here"), quiet)


async def fill(memory: AsyncMemory) -> None:
    for user in USERS:
        old = await memory.add("Paris", user_id=user, scope="home", tags=["a", "b"], key="city", confidence=0.5)
        then = await memory.add(
            "then", user_id=user, valid_from=PAST, valid_to=PAST + timedelta(days=9), x_app={"n": [1, None]}
        )
        gone = await memory.add("Rome", user_id=user, supersedes=[old.id])
        await memory.add("Oslo", user_id=user, supersedes=[gone.id], valid_from=FUTURE, source={"app": "x", "ref": "r"})
        note = await memory.add("note", user_id=user, scope="home/attic")
        await memory.update(note.id, content="a longer note", tags=["c"], supersedes=[then.id])  # from this moment on
        await asyncio.sleep(0.002)  # of a successor that is gone, its id says when it was made, to the millisecond
        await memory.delete((await memory.add("gone", user_id=user, supersedes=[note.id])).id)


async def shown(memory: AsyncMemory) -> dict[str, Any]:
    """Return all that a reader can see of every user, at several moments."""
    found: dict[str, Any] = {}
    for user in await users_of(memory):
        records = [record async for record in memory.iter(user)]
        moments = [PAST, *(record.created_at for record in records[-9:]), datetime.now(UTC), FUTURE]
        found[user] = (
            [record.model_dump(exclude={"version"}) for record in records],
            [[record.id async for record in memory.iter(user, as_of=moment)] for moment in moments],
        )
    return found


async def test_what_went_there_and_back_is_what_it_was(stores: list[Any], tmp_path: Path) -> None:
    last = AsyncMemory("sqlite", path=tmp_path / "last.db", embedder="none")
    async with stores[0].client() as here, stores[1].client() as there, last as back:
        await fill(here)
        before = await shown(here)
        first = await moved(here, there, tmp_path / "there")
        assert (first.brought, first.equal, dict(first.faults), first.ids) == (15, 15, {}, {})
        assert await shown(there) == before
        assert not (await moved(there, back, tmp_path / "back")).faults
        assert await shown(back) == before
        again = await moved(here, there, tmp_path / "there")
        assert (again.brought, again.renewed, again.equal) == (0, 0, 15)
        assert again.counts["ada"] == {"home": 1, "": 3, "home/attic": 1}
        assert again.searches["same best hit"] == again.searches["asked"] > 0


async def test_a_second_pass_brings_what_was_written_meanwhile(stores: list[Any], tmp_path: Path) -> None:
    async with stores[0].client() as here, stores[1].client() as there:
        await fill(here)
        await moved(here, there, tmp_path / "r")
        changed = (await here.list("ada")).items[0]
        await here.update(changed.id, content="said anew")
        new = await here.add("Bergen", user_id="bob", supersedes=[(await here.get(user_id="bob", key="city")).id])
        kept = (await there.list("eve")).items[0]
        await there.update(kept.id, content="changed there")
        second = await moved(here, there, tmp_path / "r")
        assert (second.brought, second.renewed, dict(second.faults)) == (1, 2, {"different": 1})
        assert second.listed == [
            {"what": "different", "user_id": "eve", "id": kept.id, "fields": ["content", "updated_at"]}
        ]
        assert (await there.get(changed.id)).content == "said anew"
        assert (await there.get(user_id="bob", key="city")).superseded_by == new.id


async def test_a_second_pass_brings_moments_of_which_no_field_tells(stores: list[Any], tmp_path: Path) -> None:
    async with stores[0].client() as here, stores[1].client() as there:
        tea = await here.add("tea", user_id="ada", scope="a")
        rum = await here.add("rum", user_id="ada")
        gin = await here.add("gin", user_id="ada", supersedes=[rum.id])
        await here.update(gin.id, content="more gin")
        await moved(here, there, tmp_path / "r")
        await here.update(tea.id, scope="a")
        await here.update(gin.id, supersedes=None)
        await here.update(gin.id, supersedes=[rum.id])  # from this moment on
        second = await moved(here, there, tmp_path / "r")
        assert (second.brought, second.renewed, dict(second.faults)) == (0, 3, {})
        assert await shown(there) == await shown(here)
        moment = gin.created_at + timedelta(microseconds=1)
        current = {record.id async for record in there.iter("ada", as_of=moment)}
        assert current == {tea.id, rum.id}
        assert not (await moved(here, there, tmp_path / "r")).renewed


async def test_moments_that_do_not_go_over_http_are_counted_before_anything_is_written(tmp_path: Path) -> None:
    store = AsyncMemory("sqlite", path=tmp_path / "here.db", embedder="none")
    there = AsyncMemory("sqlite", path=tmp_path / "there.db", embedder="none")
    with running(create_app(store, ServerSettings())) as url:
        async with AsyncMemory("passthrough", base_url=url) as here, there:
            tea, rum = [await here.add(text, user_id="ada") for text in ("tea", "rum")]
            await here.add("ale", user_id="ada", supersedes=[tea.id])  # holds from when it was made
            for direction in ((here, there), (there, here)):
                assert not (await survey(*direction, ["ada"], quiet)).cannot_keep
            late = await here.add("gin", user_id="ada")
            await here.update(late.id, supersedes=[tea.id])  # holds from a moment that no verb returns
            gone = await here.add("oil", user_id="ada", supersedes=[rum.id])
            await here.delete(gone.id)  # nobody knows any more from when on it held
            assert (await survey(here, there, ["ada"], quiet)).cannot_keep == {HISTORY: 2}
            async with AsyncMemory("sqlite", path=tmp_path / "here.db", embedder="none") as beneath:
                assert (await survey(beneath, here, ["ada"], quiet)).cannot_keep == {HISTORY: 2}
                assert not (await survey(beneath, there, ["ada"], quiet)).cannot_keep


async def test_undoing_leaves_what_was_there_and_what_was_changed(stores: list[Any], tmp_path: Path) -> None:
    async with stores[0].client() as here, stores[1].client() as there:
        mine = await there.add("mine", user_id="ada")
        await here.restore([mine])
        await fill(here)
        successor = await here.add("yours", user_id="ada", supersedes=[mine.id])
        assert (await moved(here, there, tmp_path / "r")).brought == 16
        changed = (await there.list("eve")).items[0]
        await there.update(changed.id, content="changed there")
        result = await undone(there, tmp_path / "r")
        assert (result.removed, result.changed) == (15, [{"user_id": "eve", "id": changed.id}])
        assert [record.content for user in USERS for record in await there.list(user)] == ["mine", "changed there"]
        current = [record.id async for record in there.iter("ada", as_of=datetime.now(UTC))]
        assert current == [mine.id]
        assert successor.id not in current
