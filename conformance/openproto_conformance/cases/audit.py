"""The audit log: who did what to a user's memories, newest first, and nothing of what the memories say."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from openproto.provider import AuditEntries
from openproto_conformance.bench import Bench
from openproto_conformance.case import Area
from openproto_conformance.checks import ensure, equal

area = Area("audit")

MARKER = "xyzzy-plugh-0815"


@area.case("add", "update", "delete", "audit", hint="writes: their audit entry belongs in the same transaction")
async def writes_are_recorded(bench: Bench) -> None:
    """Each write is recorded at once: its verb, memory, scope, moment, and request id, newest first."""
    user = bench.user()
    record = await bench.client.add("tea", user_id=user, **bench.supported(scope="kitchen"))
    await bench.client.update(record.id, user_id=user, content="coffee")
    await bench.client.delete(record.id, user_id=user)
    entries = [entry for entry in await bench.client.audit(user) if entry.action in ("add", "update", "delete")]
    equal([entry.action for entry in entries], ["delete", "update", "add"], "the actions, newest first")
    for entry in entries:
        equal((entry.user_id, entry.memory_id), (user, record.id), "user and memory of an entry")
        equal(entry.timestamp.utcoffset(), timedelta(0), "the offset of an entry's moment")
        ensure(entry.request_id, "an entry has no request id")
    equal(entries[2].scope, bench.supported(scope="kitchen").get("scope"), "the scope of the add")
    moments = [entry.timestamp for entry in entries]
    equal(moments, sorted(moments, reverse=True), "the moments, newest first")
    equal(len({entry.request_id for entry in entries}), 3, "the number of distinct request ids")


@area.case("add", "get", "list", "search", "audit", hint="reads: flushed before `audit` answers")
async def reads_are_recorded(bench: Bench) -> None:
    """Reads are recorded too, under the verb that was called, and `audit` sees those before it."""
    user = bench.user()
    record = await bench.add("tea", user_id=user)
    await bench.client.get(record.id, user_id=user)
    await bench.client.list(user)
    await bench.client.search("tea", user)
    await bench.client.context("tea", user)
    actions = [entry.action for entry in await bench.client.audit(user)]
    equal(actions[:4], ["context", "search", "list", "get"], "the newest actions")
    actions = [entry.action for entry in await bench.client.audit(user)]
    ensure("audit" in actions, "the audit itself is not recorded")


@area.case("add", "audit", hint="closing: reads that wait to be recorded are written first")
async def closing_records_what_waits(bench: Bench) -> None:
    """What was read just before closing is recorded."""
    user = bench.user()
    client = await bench.open()
    record = await client.add("tea", user_id=user)
    await client.get(record.id)
    await client.close()
    equal([entry.action for entry in await bench.client.audit(user)][:1], ["get"], "the newest action")


@area.case("add", "audit", hint="the filters of `audit`: app, memory_id, since (inclusive), and limit")
async def audit_filters_narrow(bench: Bench) -> None:
    """`app`, `memory_id`, `since`, and `limit` narrow the entries and keep their order."""
    user = bench.user()
    editor = await bench.open(app="editor")
    first = await bench.client.add("tea", user_id=user)
    second = await editor.add("coffee", user_id=user)
    third = await editor.add("milk", user_id=user)
    ids = [entry.memory_id for entry in await _adds(bench, user)]
    equal(ids, [third.id, second.id, first.id], "the memories, newest first")
    equal([e.memory_id for e in await _adds(bench, user, app="editor")], [third.id, second.id], "those of one app")
    equal([e.memory_id for e in await _adds(bench, user, memory_id=second.id)], [second.id], "those of one memory")
    equal([e.memory_id for e in await bench.client.audit(user, app="editor", limit=1)], [third.id], "the newest one")
    since = (await _adds(bench, user, memory_id=second.id))[0].timestamp
    later = [entry.memory_id for entry in await _adds(bench, user, since=since)]
    ensure(second.id in later and later[0] == third.id, "`since` must include its own moment and what came later")
    none = await _adds(bench, user, since=(await _adds(bench, user))[0].timestamp + timedelta(microseconds=1))
    equal(none, [], "entries since later than all")


@area.case("add", "audit", hint="entries: never content, queries, or tags")
async def entries_hold_no_content(bench: Bench) -> None:
    """No entry holds what a memory says or what was searched for."""
    user = bench.user()
    record = await bench.add(MARKER, user_id=user, tags=[MARKER], x_note=MARKER)
    if "update" in bench.capabilities.verbs:
        await bench.client.update(record.id, content=f"{MARKER} again")
    if "search" in bench.capabilities.verbs:
        await bench.client.search(MARKER, user)
    for entry in await bench.client.audit(user):
        ensure(MARKER not in repr(entry), f"the entry of {entry.action} holds content")


@area.case("add", "delete", "audit", hint="the user_id condition of `audit`, and whose entry a write by id alone is")
async def audit_stays_with_the_user(bench: Bench) -> None:
    """Entries belong to the user whose memory it was; nobody else sees them, not even by the memory's id."""
    ann, bob = bench.user("ann"), bench.user("bob")
    record = await bench.client.add("tea", user_id=ann)
    await bench.client.delete(record.id)
    equal([entry.action for entry in await bench.client.audit(ann)][:2], ["delete", "add"], "the owner's entries")
    equal(await _adds(bench, bob), [], "another user's entries")
    equal(await _adds(bench, bob, memory_id=record.id), [], "another user's entries for that memory")


@area.case("add", "audit", hint="a write that failed: no entry, since it is part of what was rolled back")
async def a_refused_write_is_not_recorded(bench: Bench) -> None:
    """A write that was refused is not recorded as done."""
    user = bench.user()
    await bench.client.add("tea", user_id=user, idempotency_key="key-1")
    outcomes = await bench.client.add_many([{"content": "milk", "user_id": user, "idempotency_key": "key-1"}])
    equal(getattr(outcomes[0], "code", None), "conflict", "the outcome of the repeated key")
    equal(len(await _adds(bench, user)), 1, "the number of adds recorded")


@area.case("add", "list", "delete", "audit", hint="`delete_all` and `add_many`: an entry for each memory")
async def batches_are_recorded_one_by_one(bench: Bench) -> None:
    """`add_many` and `delete_all` are recorded as one entry for each memory."""
    user = bench.user()
    ids = {r.id for r in await bench.add_many([{"content": f"note {n}", "user_id": user} for n in range(5)])}
    await bench.client.delete_all(user)
    entries = await bench.client.audit(user)
    for action in ("add", "delete"):
        equal({e.memory_id for e in entries if e.action == action}, ids, f"the memories with an entry of {action}")


async def _adds(bench: Bench, user: str, **filters: Any) -> AuditEntries:
    return [entry for entry in await bench.client.audit(user, **filters) if entry.action == "add"]
