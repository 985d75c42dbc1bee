"""The nine verbs do what their names say."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from openproto import InvalidRequestError, MemoryRecord, NotFoundError
from openproto_conformance.bench import Bench
from openproto_conformance.case import Area
from openproto_conformance.checks import ensure, equal, raises

area = Area("basics")

CLOCK_SKEW = timedelta(minutes=5)
NO_SUCH_IDS = ("no-such-id", "00000000-0000-8000-8000-000000000000", "'; --", "ключ/../*", "1" * 512)


@area.case("add", hint="what `add` returns: every required field must be there, created_at aware and set by the store")
async def add_returns_the_stored_record(bench: Bench) -> None:
    """`add` returns the record: an id, the content and user as given, and the moment it was created."""
    user = bench.user()
    record = await bench.client.add("Ann drinks green tea", user_id=user)
    ensure(record.id.strip(), "the id is blank")
    equal(record.content, "Ann drinks green tea", "content")
    equal(record.user_id, user, "user_id")
    ensure(abs(record.created_at - datetime.now(UTC)) < CLOCK_SKEW, "created_at is not now")


@area.case("add", hint="the signature of `add`: `content` is positional or keyword")
async def content_may_be_a_keyword(bench: Bench) -> None:
    """`add(content=...)` means the same as `add(...)`."""
    record = await bench.client.add(content="by keyword", user_id=bench.user())
    equal(record.content, "by keyword", "content")


@area.case("add", "get", hint="`get`, with and without user_id: it must read the very row that `add` wrote")
async def get_returns_what_was_added(bench: Bench) -> None:
    """`get` returns the record that `add` made, with or without naming its user."""
    record = await bench.add("Ann drinks green tea", user_id=bench.user(), tags=["tea"])
    equal(await bench.client.get(record.id, user_id=bench.user()), record, "get with user_id")
    equal(await bench.client.get(record.id), record, "get without user_id")


@area.case("get", "update", "delete", hint="the not-found path of each verb: an odd id is unknown, never an error")
async def an_unknown_id_is_not_found(bench: Bench) -> None:
    """An id that does not exist is NotFoundError in `get`, `update`, and `delete`, whatever it looks like."""
    for id in NO_SUCH_IDS:
        for user in (None, bench.user()):
            await raises(NotFoundError, bench.client.get, id, user_id=user)
            await raises(NotFoundError, bench.client.update, id, user_id=user, content="x")
            await raises(NotFoundError, bench.client.delete, id, user_id=user)


@area.case("add", "get", "update", hint="`update`: write the named columns only, and return the row as it is then")
async def update_changes_what_is_named(bench: Bench) -> None:
    """`update` changes the named fields, leaves the others alone, and returns what `get` returns afterwards."""
    user = bench.user()
    before = await bench.add("tea", user_id=user, tags=["a", "b"], confidence=0.5, **bench.supported(scope="kitchen"))
    late = datetime(2999, 1, 1, tzinfo=UTC)
    changes = bench.supported(content="coffee", scope="bar", tags=["c"], confidence=0.25, valid_to=late)
    for name, value in changes.items():
        after = await bench.indexed(await bench.client.update(before.id, user_id=user, **_one(name, value)))
        equal(await bench.client.get(before.id), after, f"get after an update of {name}")
        equal(getattr(after, name), value, f"{name} after its update")
        _equal_but_for(after, before, name)
        before = after
    many = await bench.client.update(before.id, tags=["x"], confidence=1.0)
    equal((many.tags, many.confidence), (["x"], 1.0), "two fields changed together, without naming the user")


@area.case("add", "get", "update", hint="`update`: None clears, which is not the same as a field that was not passed")
async def none_clears_a_field(bench: Bench) -> None:
    """An explicit None clears `scope`, `tags`, `confidence`, and `valid_to`; nothing else changes."""
    user = bench.user()
    late = datetime(2999, 1, 1, tzinfo=UTC)
    fields = bench.supported(scope="kitchen", tags=["a"], confidence=0.5, valid_to=late)
    before = await bench.add("tea", user_id=user, **fields)
    for name in fields:
        cleared: list[str] | None = [] if name == "tags" else None
        after = await bench.indexed(await bench.client.update(before.id, user_id=user, **_one(name, None)))
        equal(getattr(after, name), cleared, f"{name} after update({name}=None)")
        equal(getattr(await bench.client.get(before.id), name), cleared, f"{name} read back")
        _equal_but_for(after, before, name)
        before = after


@area.case("add", "get", "update", hint="`update`: content=None is invalid_request, since content cannot be cleared")
async def content_cannot_be_cleared(bench: Bench) -> None:
    """`update(content=None)` and a blank content are refused, and the record stays as it was."""
    record = await bench.add("tea", user_id=bench.user())
    for content in (None, "", "  \n"):
        await raises(InvalidRequestError, bench.client.update, record.id, content=content)
    equal(await bench.client.get(record.id), record, "the record after the refusals")


@area.case("add", "get", "update", hint="`update`: with nothing named it changes nothing")
async def an_update_of_nothing_changes_nothing(bench: Bench) -> None:
    """`update` without any change returns the record with every field as it was."""
    record = await bench.add("tea", user_id=bench.user(), tags=["a"], **bench.supported(scope="kitchen"))
    _equal_but_for(await bench.client.update(record.id), record)
    _equal_but_for(await bench.client.get(record.id), record)


@area.case("add", "get", "list", "update", "delete", hint="`delete`: the row must be gone from every verb, for good")
async def delete_is_final(bench: Bench) -> None:
    """A deleted record is gone from every verb, deleting it again is NotFoundError, and its own key is free."""
    user = bench.user()
    kept, gone, also = [await bench.add(f"tea number {n}", user_id=user) for n in range(3)]
    await bench.client.delete(gone.id, user_id=user)
    await bench.client.delete(also.id)
    for id in (gone.id, also.id):
        await raises(NotFoundError, bench.client.get, id, user_id=user)
        await raises(NotFoundError, bench.client.update, id, user_id=user, content="back")
        await raises(NotFoundError, bench.client.delete, id, user_id=user)
    equal([record.id for record in await bench.inventory(user)], [kept.id], "the ids left in list")
    if bench.capabilities.x_openproto.support.get("key", "none") != "none":
        bearer = await bench.client.add("tea", user_id=user, key="profile")
        await bench.client.delete(bearer.id)
        equal(
            (await bench.client.add("milk", user_id=user, key="profile")).key, "profile", "the key of the next record"
        )


@area.case("add", "delete", hint="how ids are made: never from a count, a clock alone, or the content")
async def an_id_is_never_used_twice(bench: Bench) -> None:
    """Ids are unique: for equal contents, across users, in a batch, and after a delete."""
    users = [bench.user("ann"), bench.user("bob")]
    records = [await bench.client.add("the same words", user_id=user) for user in users * 3]
    await bench.client.delete(records[-1].id)
    records.append(await bench.client.add("the same words", user_id=users[1]))
    records += await bench.add_many([{"content": "the same words", "user_id": users[0]}] * bench.size(500, 100))
    equal(len({record.id for record in records}), len(records), "the number of distinct ids")


@area.case("list", hint="`list` of a user without records: an empty page, no cursor")
async def a_new_user_has_nothing(bench: Bench) -> None:
    """A user who was never heard of has an empty inventory, and emptying it removes nothing."""
    page = await bench.client.list(bench.user())
    equal((page.items, page.next_cursor), ([], None), "the first page")
    if "delete" in bench.capabilities.verbs:
        equal(await bench.client.delete_all(bench.user()), 0, "delete_all")


@area.case("add", "list", "delete", hint="`delete_all`: it counts what it removed, and touches this user only")
async def delete_all_empties_a_user(bench: Bench) -> None:
    """`delete_all` removes every record of the user, more than a page of them, and returns how many there were."""
    size = bench.size(1200, 520)
    await bench.add_many([{"content": f"note {n}", "user_id": bench.user()} for n in range(size)])
    other = await bench.add("stays", user_id=bench.user("bob"))
    equal(await bench.client.delete_all(bench.user()), size, "the number that delete_all returned")
    equal(await bench.inventory(bench.user()), [], "what is left")
    equal(await bench.inventory(bench.user("bob")), [other], "the other user's records")


@area.case("add", "list", hint="`add_many`: outcomes in the order of the items, an error in the place of its item")
async def add_many_answers_in_order(bench: Bench) -> None:
    """`add_many` stores each item on its own and returns each outcome in the item's place."""
    user = bench.user()
    items = [{"content": f"note {n}", "user_id": user, "tags": [f"t{n}"]} for n in range(20)]
    items[7] = {"content": " ", "user_id": user}
    items[13] = {"content": "misspelt", "user_id": user, "tagz": ["x"]}
    outcomes = await bench.client.add_many(items)
    equal(len(outcomes), len(items), "the number of outcomes")
    for n, outcome in enumerate(outcomes):
        if n in (7, 13):
            ensure(isinstance(outcome, InvalidRequestError), f"outcome {n} must be an InvalidRequestError")
        else:
            ensure(isinstance(outcome, MemoryRecord), f"outcome {n} must be a record")
            equal((outcome.content, outcome.tags), (f"note {n}", [f"t{n}"]), f"outcome {n}")  # type: ignore[union-attr]
    stored = {record.content for record in await bench.inventory(user)}
    equal(stored, {f"note {n}" for n in range(20) if n not in (7, 13)}, "what was stored")
    equal(await bench.client.add_many([]), [], "the outcomes of no items")


@area.case("add", "list", hint="`iter`: it must follow next_cursor to the end, and pass every filter on")
async def iter_yields_what_list_holds(bench: Bench) -> None:
    """`iter` yields every record that `list` would, whatever the size of its pages."""
    user = bench.user()
    await bench.add_many([{"content": f"note {n}", "user_id": user, "tags": [f"t{n % 2}"]} for n in range(25)])
    whole = (await bench.client.list(user, limit=100)).items
    for size in (1, 7, 25, 500):
        equal([record async for record in bench.client.iter(user, page_size=size)], whole, f"pages of {size}")
    odd = [record async for record in bench.client.iter(user, tag="t1", page_size=5)]
    equal(odd, [record for record in whole if record.tags == ["t1"]], "iter with a tag")


@area.case(hint="`health`: it asks the backend, and answers in words")
async def a_backend_that_answers_is_healthy(bench: Bench) -> None:
    """`health` says ok while the backend answers, and names the provider."""
    health = await bench.client.health()
    equal((health.status, health.provider), ("ok", bench.capabilities.provider), "health")


def _one(name: str, value: Any) -> Any:
    """Return the keywords of an update of one field, which no type checker can follow."""
    return {name: value}


def _equal_but_for(after: MemoryRecord, before: MemoryRecord, *names: str) -> None:
    """Check that nothing but the named fields, and what follows every change, differs."""
    free = {*names, "updated_at", "version", "status", "embedding_model"}
    what = f"every field but {', '.join(names) or 'updated_at'}"
    equal(after.model_dump(exclude=free), before.model_dump(exclude=free), what)
