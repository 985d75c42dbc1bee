"""Order and paging: newest first, each record exactly once, whatever is written meanwhile."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from openproto import InvalidRequestError, MemoryRecord
from openproto_conformance.bench import Bench
from openproto_conformance.case import Area
from openproto_conformance.checks import ensure, equal, raises

area = Area("paging")

MALFORMED = ("x", "0", "-1", "100", "offset:10", "ÄÖÜ", "A" * 256, "eyJvZmZzZXQiOjEwfQ==", "null", "%00", "' OR 1=1")


@area.case("add", "list", hint="ORDER BY created_at DESC, id DESC; ids compared as text")
async def list_is_newest_first(bench: Bench) -> None:
    """`list` is ordered by created_at, then id, both descending."""
    user = bench.user()
    added = [await bench.add(f"note {n}", user_id=user) for n in range(10)]
    added += await bench.add_many([{"content": f"batch {n}", "user_id": user} for n in range(50)])
    records = (await bench.client.list(user, limit=500)).items
    keys = [(record.created_at, record.id) for record in records]
    equal(keys, sorted(keys, reverse=True), "the order of list")
    equal({record.id for record in records}, {record.id for record in added}, "the ids in list")
    equal(records[-1].id, added[0].id, "the oldest record, which must come last")


@area.case("add", "list", hint="`limit` and next_cursor: the page after the last record, None where there is none")
async def pages_hold_each_record_once(bench: Bench) -> None:
    """Pages of any size hold every record once, and no cursor promises an empty last page."""
    user = bench.user()
    await bench.add_many([{"content": f"note {n}", "user_id": user} for n in range(12)])
    whole = [record.id for record in (await bench.client.list(user)).items]
    for limit in (1, 2, 5, 6, 11, 12, 13, 500):
        pages = await _pages(bench, user, limit=limit)
        equal([record.id for page in pages for record in page], whole, f"all pages of {limit}")
        equal([len(page) for page in pages[:-1]], [limit] * (len(pages) - 1), f"pages of {limit} before the last")
        ensure(pages[-1], f"with pages of {limit} a cursor led to an empty last page")


@area.case("add", "list", "delete", hint="records of one moment: `id` decides, in the order and behind a cursor")
async def records_of_one_moment_are_paged_by_id(bench: Bench) -> None:
    """Records that were made in one moment come once each, in descending order of their ids."""
    if bench.capabilities.x_openproto.support.get("restore", "none") == "none":
        return
    user = bench.user()
    records = await bench.add_many([{"content": f"note {n}", "user_id": user} for n in range(7)])
    await bench.client.delete_all(user)
    moment = records[0].created_at
    await bench.client.restore([record.model_copy(update={"created_at": moment}) for record in records])
    wanted = sorted((record.id for record in records), reverse=True)
    for limit in (1, 2, 3, 7):
        pages = await _pages(bench, user, limit=limit)
        equal([record.id for page in pages for record in page], wanted, f"all pages of {limit}")


@area.case("add", "list", seconds=90, hint="the keyset condition of `list`, and any silent cap on how much it returns")
async def ten_thousand_records_come_once_each(bench: Bench) -> None:
    """Ten thousand records, written in batches, come back once each and in order."""
    user, size = bench.user(), bench.size(10_000, 1_200)
    added = [
        record.id for record in await bench.add_many([{"content": f"note {n}", "user_id": user} for n in range(size)])
    ]
    records = await bench.inventory(user)
    equal(len(records), size, "the number of records that paging found")
    equal({record.id for record in records}, set(added), "their ids")
    keys = [(record.created_at, record.id) for record in records]
    equal(keys == sorted(keys, reverse=True), True, "whether they are in order")
    equal(len((await bench.client.list(user, limit=500)).items), 500, "the largest page")


@area.case("add", "list", hint="the cursor: it must hold a position (created_at, id), never a count of rows to skip")
async def inserts_do_not_disturb_paging(bench: Bench) -> None:
    """Records that are added while somebody pages neither repeat a record nor hide one."""
    user = bench.user()
    before = await bench.add_many([{"content": f"old {n}", "user_id": user} for n in range(20)])

    async def insert() -> None:
        await bench.add_many([{"content": f"new {n}", "user_id": user} for n in range(3)])

    seen = [record for page in await _pages(bench, user, limit=4, between=insert) for record in page]
    ids = [record.id for record in seen]
    equal(len(set(ids)), len(ids), "the number of distinct ids")
    old = [record.id for record in seen if record.content.startswith("old")]
    equal(sorted(old), sorted(record.id for record in before), "the records that were there before")
    keys = [(record.created_at, record.id) for record in seen]
    equal(keys, sorted(keys, reverse=True), "the order over all pages")


@area.case("add", "list", "delete", hint="the cursor: its own record may be gone, and it must still mean its place")
async def deletes_do_not_disturb_paging(bench: Bench) -> None:
    """Deleting records that were seen, the cursor's own among them, hides none of the others."""
    user = bench.user()
    await bench.add_many([{"content": f"note {n}", "user_id": user} for n in range(20)])
    whole = [record.id for record in (await bench.client.list(user)).items]
    seen: list[str] = []
    page = await bench.client.list(user, limit=4)
    while True:
        seen += [record.id for record in page.items]
        if page.next_cursor is None:
            break
        for record in page.items:
            await bench.client.delete(record.id, user_id=user)
        page = await bench.client.list(user, limit=4, cursor=page.next_cursor)
    equal(seen, whole, "the ids over all pages")


@area.case(
    "add", "list", features=("scopes",), hint="filters on the second page and after it: the same as on the first"
)
async def filters_hold_on_every_page(bench: Bench) -> None:
    """A filter holds on every page, and the bounds on created_at too."""
    user = bench.user()
    items = [
        {"content": f"note {n}", "user_id": user, "scope": ("a", "b")[n % 2], "tags": [f"t{n % 3}"]} for n in range(30)
    ]
    await bench.add_many(items)
    whole = (await bench.client.list(user, limit=100)).items
    narrowed: tuple[tuple[dict[str, Any], Callable[[MemoryRecord], bool]], ...] = (
        ({"scope": "a"}, lambda r: r.scope == "a"),
        ({"tag": "t2"}, lambda r: r.tags == ["t2"]),
        ({"until": whole[10].created_at}, lambda r: r.created_at <= whole[10].created_at),
    )
    for filter, keep in narrowed:
        pages = await _pages(bench, user, limit=3, **filter)
        equal([r for page in pages for r in page], [r for r in whole if keep(r)], f"pages with {sorted(filter)}")


@area.case("add", "list", hint="the length of a cursor: a position, not the query or the record")
async def a_cursor_is_short(bench: Bench) -> None:
    """A cursor has at most 256 characters, whatever the filters are."""
    user = (bench.user() + "u" * 256)[:256]
    scope, tag = bench.supported(scope="/".join(["s" * 63] * 8)), "t" * 128
    await bench.add_many([{"content": "note", "user_id": user, "tags": [tag], **scope}] * 3)
    page = await bench.client.list(user, tag=tag, limit=1, **scope)
    ensure(page.next_cursor and len(page.next_cursor) <= 256, "the cursor is missing, or longer than 256 characters")
    again = await bench.client.list(user, tag=tag, limit=1, cursor=page.next_cursor, **scope)
    ensure(again.items and again.items[0].id != page.items[0].id, "the cursor led to the same record")


@area.case("add", "list", hint="decoding a cursor: whatever does not decode is invalid_request, never page one")
async def a_malformed_cursor_is_invalid(bench: Bench) -> None:
    """A cursor that is malformed, cut, or grown is invalid_request."""
    user = bench.user()
    await bench.add_many([{"content": f"note {n}", "user_id": user} for n in range(3)])
    cursor = (await bench.client.list(user, limit=1)).next_cursor
    ensure(cursor, "there is no cursor to the second page")
    for broken in (
        *MALFORMED,
        "",
        " ",
        "c" * 257,
        f"{cursor}*",
        f"\0{cursor}",
        (cursor or "")[: len(cursor or "") // 3],
    ):
        await raises(InvalidRequestError, bench.client.list, user, cursor=broken)


@area.case("add", "list", hint="a cursor must carry which listing it belongs to")
async def a_foreign_cursor_is_invalid(bench: Bench) -> None:
    """A cursor of another user, or of other filters, is invalid_request."""
    ann, bob = bench.user("ann"), bench.user("bob")
    for user in (ann, bob):
        await bench.add_many([{"content": f"note {n}", "user_id": user, "tags": ["x"]} for n in range(3)])
    foreign = (await bench.client.list(bob, limit=1)).next_cursor
    other = (await bench.client.list(ann, tag="x", limit=1)).next_cursor
    ensure(foreign and other, "there is no cursor to the second page")
    await raises(InvalidRequestError, bench.client.list, ann, limit=1, cursor=foreign)
    await raises(InvalidRequestError, bench.client.list, ann, limit=1, cursor=other)


@area.case("add", "list", level="should", hint="what a cursor refers to: the store, not the memory of one client")
async def a_cursor_outlives_its_client(bench: Bench) -> None:
    """A cursor that one client was given works on another."""
    user = bench.user()
    await bench.add_many([{"content": f"note {n}", "user_id": user} for n in range(4)])
    whole = (await bench.client.list(user)).items
    page = await bench.client.list(user, limit=2)
    other = await bench.open()
    equal((await other.list(user, limit=2, cursor=page.next_cursor)).items, whole[2:], "the second page")


async def _pages(
    bench: Bench, user: str, *, between: Callable[[], Awaitable[None]] | None = None, **options: Any
) -> list[list[MemoryRecord]]:
    """Return every page of a listing, calling `between` after each."""
    page = await bench.client.list(user, **options)
    pages = [page.items]
    while page.next_cursor is not None:
        ensure(len(pages) < 100, "the cursors never come to an end")
        if between is not None:
            await between()
        page = await bench.client.list(user, cursor=page.next_cursor, **options)
        pages.append(page.items)
    return pages
