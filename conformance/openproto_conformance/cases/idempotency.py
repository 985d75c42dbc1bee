"""Idempotency keys: adding twice is adding once."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

from openproto import ConflictError, MemoryRecord, NotFoundError, OpenProtoError
from openproto_conformance.bench import Bench
from openproto_conformance.case import Area
from openproto_conformance.checks import ensure, equal, raises

area = Area("idempotency")

MOMENT = datetime(2024, 5, 1, 12, tzinfo=UTC)
INPUT: dict[str, Any] = {
    "content": "tea",
    "scope": "kitchen",
    "tags": ["a", "b"],
    "source": {"app": "notebook"},
    "confidence": 0.5,
    "valid_from": MOMENT,
    "x-note": {"n": 1},
}
OTHERS: tuple[dict[str, Any], ...] = (
    {"content": "tea "},
    {"scope": None},
    {"tags": ["b", "a"]},
    {"source": {"app": "notebook", "ref": "1"}},
    {"confidence": 0.5000000000000001},
    {"valid_from": MOMENT.replace(microsecond=1)},
    {"valid_to": MOMENT.replace(year=2999)},
    {"x-note": {"n": 2}},
)


@area.case("add", "list", hint="a repeated key: look it up before writing, under a unique index on (user, key)")
async def a_repeated_add_is_one_record(bench: Bench) -> None:
    """The same key and input again return the first record and store nothing new."""
    user = bench.user()
    fields = bench.supported(**INPUT)
    first = await bench.add(user_id=user, idempotency_key="key-1", **fields)
    for _ in range(3):
        equal(await bench.client.add(user_id=user, idempotency_key="key-1", **fields), first, "the repeated add")
    equal(await bench.inventory(user), [first], "the user's records")


@area.case("add", "list", hint="what a key is compared with: every field of the input")
async def another_input_under_a_key_is_a_conflict(bench: Bench) -> None:
    """The same key with an input that differs in any field is ConflictError, and nothing is written."""
    user = bench.user()
    first = await bench.add(user_id=user, idempotency_key="key-1", **bench.supported(**INPUT))
    for other in filter(None, (bench.supported(**other) for other in OTHERS)):
        fields = {**bench.supported(**INPUT), **other}
        await raises(ConflictError, bench.client.add, user_id=user, idempotency_key="key-1", **fields)
    equal(await bench.inventory(user), [first], "the user's records after the conflicts")


@area.case("add", "list", hint="the key's reach: one user")
async def a_key_belongs_to_its_user(bench: Bench) -> None:
    """Two users may use the same key for different memories."""
    records = [
        await bench.add(f"tea of {name}", user_id=bench.user(name), idempotency_key="key-1") for name in ("ann", "bob")
    ]
    for name, record in zip(("ann", "bob"), records, strict=True):
        equal(record.user_id, bench.user(name), "user_id")
        equal(await bench.inventory(bench.user(name)), [record], "the user's records")


@area.case("add", "list", hint="no key: every add is its own record, equal content or not")
async def without_a_key_each_add_is_its_own(bench: Bench) -> None:
    """Equal inputs without a key are separate records."""
    records = [await bench.add("tea", user_id=bench.user()) for _ in range(3)]
    equal(len({record.id for record in records}), 3, "the number of distinct ids")
    equal(len(await bench.inventory(bench.user())), 3, "the number of records")


@area.case("add", "list", hint="a race for one key: a unique index, not a look-up before the write")
async def racing_adds_under_a_key_are_one_record(bench: Bench) -> None:
    """Many adds at once under one key make one record, and all of them return it."""
    user = bench.user()
    other = await bench.open()
    for round in range(5):
        clients = [bench.client, other] * 10
        adds = [client.add("tea", user_id=user, idempotency_key=f"key-{round}") for client in clients]
        records = await asyncio.gather(*adds)
        equal(len({record.id for record in records}), 1, "the number of distinct ids that the racers were given")
    equal(len(await bench.inventory(user)), 5, "the number of records")


@area.case("add", "list", hint="keys in `add_many`: against the store and within the batch")
async def keys_hold_in_a_batch(bench: Bench) -> None:
    """In `add_many`, a key repeats or conflicts as in `add`, also within the batch."""
    user = bench.user()
    first = await bench.add("tea", user_id=user, idempotency_key="stored")
    outcomes = await bench.client.add_many(
        [
            {"content": "tea", "user_id": user, "idempotency_key": "stored"},
            {"content": "coffee", "user_id": user, "idempotency_key": "stored"},
            {"content": "milk", "user_id": user, "idempotency_key": "fresh"},
            {"content": "milk", "user_id": user, "idempotency_key": "fresh"},
            {"content": "water", "user_id": user, "idempotency_key": "fresh"},
        ]
    )
    codes = [outcome.code if isinstance(outcome, OpenProtoError) else "stored" for outcome in outcomes]
    equal(codes, ["stored", "conflict", "stored", "stored", "conflict"], "the outcomes")
    ids = [outcome.id if isinstance(outcome, MemoryRecord) else None for outcome in outcomes]
    ensure(ids[0] == first.id and ids[2] == ids[3], "a repeated key must return the first record")
    equal(len(await bench.inventory(user)), 2, "the number of records")


@area.case("add", "get", "update", hint="a key after an update: it names the record, whatever has become of it")
async def a_key_still_names_an_updated_record(bench: Bench) -> None:
    """After an update, repeating the add returns that record and does not undo the update."""
    user = bench.user()
    first = await bench.add("tea", user_id=user, idempotency_key="key-1")
    await bench.client.update(first.id, content="coffee")
    again = await bench.client.add("tea", user_id=user, idempotency_key="key-1")
    equal(again.id, first.id, "the id of the repeated add")
    equal((await bench.client.get(first.id)).content, "coffee", "the content")


@area.case("add", "get", "delete", hint="a key after a delete: the old record must not come back under it")
async def a_key_does_not_undo_a_delete(bench: Bench) -> None:
    """After a delete, repeating the add never brings the deleted record back."""
    user = bench.user()
    first = await bench.add("tea", user_id=user, idempotency_key="key-1")
    await bench.client.delete(first.id)
    try:
        again = await bench.client.add("tea", user_id=user, idempotency_key="key-1")
    except ConflictError:
        pass  # as good as a new record: the protocol leaves it open
    else:
        ensure(again.id != first.id, "the deleted record's id came back")
    await raises(NotFoundError, bench.client.get, first.id, user_id=user)
