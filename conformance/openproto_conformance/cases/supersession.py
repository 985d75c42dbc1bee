"""Supersession: a newer record takes the place of older ones, and what that means for reading."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from openproto import InvalidRequestError, NotFoundError, OpenProtoError, UnsupportedCapabilityError
from openproto_conformance.bench import Bench
from openproto_conformance.case import Area, Feature
from openproto_conformance.checks import ensure, equal, raises

area = Area("supersession")

MOMENT, TICK = datetime(2001, 9, 9, 1, 46, 40, 1, tzinfo=UTC), timedelta(microseconds=1)
FEATURES: tuple[Feature, ...] = ("supports_supersession",)


@area.case(
    "add", "get", "list", features=FEATURES, hint="`add` with supersedes: mark the old records in the same transaction"
)
async def a_record_supersedes_others(bench: Bench) -> None:
    """`supersedes` marks the named records with `superseded_by` and leaves them in `list`."""
    user = bench.user()
    old, older, other = [await bench.add(f"tea number {n}", user_id=user) for n in range(3)]
    new = await bench.add("coffee now", user_id=user, supersedes=[old.id, older.id])
    equal(new.supersedes, [old.id, older.id], "supersedes of the new record")
    for id, by in ((old.id, new.id), (older.id, new.id), (other.id, None), (new.id, None)):
        equal((await bench.client.get(id)).superseded_by, by, "superseded_by")
    equal(len(await bench.inventory(user)), 4, "the number of records in list")


@area.case("add", "search", features=FEATURES, hint="`search` and `context`: a superseded record is not current")
async def a_superseded_record_is_not_found(bench: Bench) -> None:
    """`search` and `context` pass over superseded records."""
    user = bench.user()
    old = await bench.add("the zeppelin is grey", user_id=user)
    new = await bench.add("the zeppelin is red", user_id=user, supersedes=[old.id])
    equal(await bench.found("zeppelin", user), [new.id], "the ids found")
    block = await bench.client.context("zeppelin", user)
    equal([citation.memory_id for citation in block.citations], [new.id], "the ids cited")


@area.case(
    "add", "get", "list", "delete", features=("temporal", *FEATURES), hint="`restore`: who superseded whom, and when"
)
async def restoring_keeps_who_superseded_whom(bench: Bench) -> None:
    """Records that are restored supersede each other as before, from the same moment on."""
    if bench.capabilities.x_openproto.support.get("restore", "none") == "none":
        return
    user = bench.user()
    old = await bench.add("the zeppelin is grey", user_id=user)
    new = await bench.add("the zeppelin is red", user_id=user, supersedes=[old.id], valid_from=MOMENT)
    records = [await bench.client.get(id) for id in (old.id, new.id)]
    for some in (records[:1], records):
        await bench.client.delete_all(user)
        outcomes = await bench.client.restore(some)
        equal([outcome.outcome for outcome in outcomes], ["restored"] * len(some), "what became of the records")
        equal((await bench.client.get(old.id)).superseded_by, new.id, "superseded_by of the older record")
    equal((await bench.client.get(new.id)).supersedes, [old.id], "supersedes of the newer record")
    for moment, current in ((MOMENT - TICK, old.id), (MOMENT, new.id)):
        equal([r.id for r in await bench.inventory(user, as_of=moment)], [current], f"what is current at {moment}")


@area.case(
    "add",
    "list",
    "search",
    features=("temporal", *FEATURES),
    hint="as_of before the supersession: keep when it happened",
)
async def the_past_remembers_what_was_current(bench: Bench) -> None:
    """As of a moment before it was superseded, a record is current; from then on it is not."""
    user = bench.user()
    old = await bench.add("the zeppelin is grey", user_id=user)
    witness = await bench.add("something else", user_id=user)
    new = await bench.add("the zeppelin is red", user_id=user, supersedes=[old.id])
    before, after = witness.created_at, new.created_at
    if before < after:  # a coarse clock can make them one moment
        ensure(old.id in await bench.found("zeppelin", user, as_of=before), "search as of before misses it")
        ensure(old.id in [r.id for r in await bench.inventory(user, as_of=before)], "list as of before misses it")
    ensure(old.id not in await bench.found("zeppelin", user, as_of=after), "search as of afterwards still finds it")
    ensure(old.id not in [r.id for r in await bench.inventory(user, as_of=after)], "list as of afterwards has it")


@area.case(
    "add",
    "list",
    features=FEATURES,
    hint="`add` with supersedes: check every id first; nothing is written when one is missing",
)
async def an_unknown_id_supersedes_nothing(bench: Bench) -> None:
    """An unknown or foreign id in `supersedes` is NotFoundError, and nothing at all is written."""
    user = bench.user()
    mine = await bench.add("mine", user_id=user)
    foreign = await bench.add("not mine", user_id=bench.user("bob"))
    before = await bench.inventory(user)
    for bad in ("no-such-id", foreign.id):
        for ids in ([bad], [mine.id, bad], [bad, mine.id]):
            await raises(NotFoundError, bench.client.add, "new", user_id=user, supersedes=ids)
            equal(await bench.inventory(user), before, "the user's records after the refusal")
    equal((await bench.client.get(foreign.id)).superseded_by, None, "superseded_by of the foreign record")


@area.case(
    "add",
    "list",
    "update",
    features=FEATURES,
    hint="`update` of supersedes: append what is new, check ids as `add` does",
)
async def an_update_appends_to_what_is_superseded(bench: Bench) -> None:
    """`update(supersedes=...)` appends without duplicates; an unknown or foreign id changes nothing."""
    user = bench.user()
    first, second, new = [await bench.add(f"tea number {n}", user_id=user) for n in range(3)]
    foreign = await bench.add("not mine", user_id=bench.user("bob"))
    await bench.client.update(new.id, supersedes=[first.id])
    updated = await bench.client.update(new.id, supersedes=[second.id, first.id, second.id])
    equal(updated.supersedes, [first.id, second.id], "supersedes after two updates")
    equal((await bench.client.get(second.id)).superseded_by, new.id, "superseded_by")
    before = await bench.inventory(user)
    for bad in ("no-such-id", foreign.id):
        await raises(NotFoundError, bench.client.update, new.id, supersedes=[bad], content="changed")
    equal(await bench.inventory(user), before, "the user's records after the refusals")


@area.case("add", "list", "update", features=FEATURES, hint="a record that supersedes itself: invalid_request")
async def a_record_cannot_supersede_itself(bench: Bench) -> None:
    """A record that names itself in `supersedes` is invalid_request and stays as it was; restored, it is refused."""
    record = await bench.add("tea", user_id=bench.user())
    await raises(InvalidRequestError, bench.client.update, record.id, supersedes=[record.id])
    equal(await bench.inventory(bench.user()), [record], "the user's records after the refusal")
    support = bench.capabilities.x_openproto.support
    if "delete" in bench.capabilities.verbs and support.get("restore", "none") != "none":
        await bench.client.delete(record.id)
        (told,) = await bench.client.restore([record.model_copy(update={"supersedes": [record.id]})])
        equal(told.outcome, "refused", "what became of the restored record")
        equal(await bench.inventory(bench.user()), [], "the user's records after a refused restore")


@area.case(
    "add",
    "get",
    "search",
    "update",
    features=FEATURES,
    hint="supersedes=None: also undo the marks that it made, and only those",
)
async def clearing_gives_the_old_ones_back(bench: Bench) -> None:
    """`update(supersedes=None)` makes the old records current again, but for those that others supersede too."""
    user = bench.user()
    free, held = [await bench.add(f"the zeppelin, state {n}", user_id=user) for n in range(2)]
    other = await bench.add("another view", user_id=user, supersedes=[held.id])
    new = await bench.add("a new view", user_id=user, supersedes=[free.id, held.id])
    cleared = await bench.client.update(new.id, supersedes=None)
    equal(cleared.supersedes, [], "supersedes after clearing")
    equal((await bench.client.get(free.id)).superseded_by, None, "superseded_by of the one that nothing else holds")
    equal((await bench.client.get(held.id)).superseded_by, other.id, "superseded_by of the one that another holds")
    found = set(await bench.found("zeppelin", user))
    equal(found & {free.id, held.id}, {free.id}, "the old ones found")


@area.case("add", "get", "list", features=FEATURES, hint="`add_many` with supersedes: each item by itself")
async def a_batch_supersedes_item_by_item(bench: Bench) -> None:
    """In `add_many`, an item with an unknown id in `supersedes` fails alone."""
    user = bench.user()
    old = await bench.add("tea", user_id=user)
    outcomes = await bench.client.add_many(
        [
            {"content": "good", "user_id": user, "supersedes": [old.id]},
            {"content": "bad", "user_id": user, "supersedes": ["no-such-id"]},
            {"content": "plain", "user_id": user},
        ]
    )
    kinds = ["error" if isinstance(outcome, OpenProtoError) else "record" for outcome in outcomes]
    equal(kinds, ["record", "error", "record"], "the outcomes")
    ensure(isinstance(outcomes[1], NotFoundError), "the outcome of the bad item must be NotFoundError")
    equal({r.content for r in await bench.inventory(user)}, {"tea", "good", "plain"}, "what was stored")
    equal((await bench.client.get(old.id)).superseded_by, getattr(outcomes[0], "id", None), "superseded_by")


@area.case(
    "add", "list", features=("temporal", *FEATURES), hint="on_duplicate: look up and write in one transaction or lock"
)
async def of_what_is_said_twice_at_once_one_is_current(bench: Bench) -> None:
    """With `on_duplicate`, the same said many times at once is one current record; who lacks it refuses it by name."""
    support = bench.capabilities.x_openproto.support.get("on_duplicate", "none")
    user, others = bench.user(), bench.user("bob")
    said = ("Ada drinks tea", "ada drinks TEA.", "Ada  drinks tea!", "Ada drinks tea")
    if support == "none":
        await raises(UnsupportedCapabilityError, bench.client.add, said[0], user_id=user, on_duplicate="skip")
        equal(await bench.inventory(user), [], "the user's records after the refusal")
        return
    await bench.add(said[0], user_id=others)
    records = await asyncio.gather(*(bench.client.add(text, user_id=user, on_duplicate="skip") for text in said))
    equal({record.id for record in records}, {(await bench.inventory(user))[0].id}, "the ids of what was said")
    reported = [record.duplicate_of for record in records if record.duplicate_of is not None]
    equal(reported, [records[0].id] * (len(said) - 1), "duplicate_of of those that were skipped")
    await asyncio.gather(*(bench.client.add(text, user_id=user, on_duplicate="supersede") for text in said))
    current = await bench.inventory(user, as_of=datetime.now(UTC) + timedelta(seconds=5))
    equal(len(current), 1, "the number of current records")
    equal(len(await bench.inventory(user)), 1 + len(said), "the number of records in list")
    equal(len(await bench.inventory(others)), 1, "the number of records of another user")
