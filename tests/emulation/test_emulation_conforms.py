"""The whole contract on the simplest vendor: whatever its search can reach, and in whatever order it lists.

Every day on one face, since `Memory` does with it what it does with the stores.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Coroutine
from datetime import datetime
from functools import cache
from typing import Any

import pytest
from dict_vendor import DictVendor, Row
from openproto_conformance import ProviderSuite
from openproto_conformance.cases import AREAS
from waiting import until

from openproto import AsyncMemory, NotFoundError, Provider, ProviderError, ProviderUnavailableError
from openproto.emulation import Ranked, Stored
from openproto.requests import MemoryInput, SearchQuery

FORKED = {"a_forked_child_has_a_backend_of_its_own": "a dictionary is copied when its process is"}


@cache
def rows(name: str) -> dict[str, Row]:
    return {}


@pytest.mark.everyday(*(area.name for area in AREAS), faces=("async",))
class TestDictVendor(ProviderSuite):
    quick = True
    deviations = FORKED

    def provider(self) -> Provider:
        return DictVendor(rows("plain"))


@pytest.mark.everyday("context", "filters", "histories", "paging", "search", "time", faces=("async",))
class TestShortSightedVendor(ProviderSuite):
    """Its search never answers more than three hits, and it lists in order."""

    quick = True
    deviations = FORKED

    def provider(self) -> Provider:
        return DictVendor(rows("short-sighted"), most_ranked=3, ordered=True)


class Faltering(DictVendor):
    fail_replace = False
    hold: asyncio.Event | None = None

    async def replace(self, old: Stored, new: Stored) -> Stored:
        if self.hold is not None:
            await self.hold.wait()
        if self.fail_replace:
            raise ProviderUnavailableError("the vendor is down")
        if old.record.id not in self.rows:
            raise NotFoundError("no such memory")
        return await super().replace(old, new)


async def hanging(memory: AsyncMemory, vendor: Faltering) -> tuple[str, asyncio.Task[Any]]:
    """Return the id of a memory, and a call that has added another and hangs where it marks the first."""
    old = await memory.add("tea", user_id="ada")
    vendor.hold = asyncio.Event()
    adding = asyncio.create_task(memory.add("coffee", user_id="ada", supersedes=[old.id]))
    await until(lambda: vendor.creates == 2)
    return old.id, adding


async def test_a_successor_is_written_although_another_process_deletes_its_predecessor_meanwhile() -> None:
    vendor = Faltering({})
    async with AsyncMemory(vendor) as memory:
        old, adding = await hanging(memory, vendor)
        del vendor.rows[old]
        assert vendor.hold
        vendor.hold.set()
        added = await adding
        assert (added.content, added.supersedes) == ("coffee", [old])
        assert (await memory.update(added.id, supersedes=None)).supersedes == []


async def test_a_key_is_free_although_a_listing_still_shows_whom_another_process_has_deleted() -> None:
    class Lagging(DictVendor):
        async def find_named(self, user_id: str, key: str) -> Stored | None:
            return listed

    vendor, listed = Lagging({}), None
    async with AsyncMemory(vendor, timeout=5) as memory:
        first = await memory.put("tea", user_id="ada", key="drink")
        listed = await vendor.find(first.id, "ada")
        vendor.rows.clear()
        assert (await memory.put("coffee", user_id="ada", key="drink")).id != first.id


async def test_a_write_that_hangs_is_given_up_after_its_caller_left() -> None:
    vendor = Faltering({})
    async with AsyncMemory(vendor) as memory:
        old, adding = await hanging(memory, vendor)
        adding.cancel()
        await asyncio.wait([adding])
        assert vendor._finishing
        await until(lambda: not vendor._finishing)
        vendor.hold = None
        async with asyncio.timeout(5):  # its locks are free again
            await memory.update(old, content="green tea")


async def test_closing_ends_a_write_that_hangs_and_says_so() -> None:
    vendor = Faltering({})
    memory = AsyncMemory(vendor, close_timeout=0.2)
    _, adding = await hanging(memory, vendor)
    await memory.aclose()
    with pytest.raises(ProviderUnavailableError, match="closed while"):
        await adding


async def test_repeating_a_key_makes_the_marks_that_failed() -> None:
    vendor = Faltering({})
    async with AsyncMemory(vendor, retries=0) as memory:
        old = await memory.add("tea", user_id="ada")
        vendor.fail_replace = True
        with pytest.raises(ProviderUnavailableError):
            await memory.add("coffee", user_id="ada", supersedes=[old.id], idempotency_key="k")
        vendor.fail_replace = False
        again = await memory.add("coffee", user_id="ada", supersedes=[old.id], idempotency_key="k")
        assert (await memory.get(old.id)).superseded_by == again.id
        assert len((await memory.list("ada")).items) == 2


async def test_a_first_add_without_a_key_looks_nothing_up() -> None:
    class Watched(DictVendor):
        async def find_key(self, user_id: str, key: str) -> Stored | None:
            raise AssertionError("nobody but a retry can repeat this key")

    async with AsyncMemory(Watched({})) as memory:
        await memory.add("tea", user_id="ada")


async def test_another_users_row_is_an_error_and_no_result() -> None:
    class Leaky(DictVendor):
        async def scan(self, user_id: str, until: datetime | None = None):  # type: ignore[no-untyped-def,override]
            for row in self.rows.values():
                yield Stored.from_text(row.metadata, row.text)

    async with AsyncMemory(Leaky({})) as memory:
        record = await memory.add("a secret", user_id="bob")
        for call in (memory.list("ada"), memory.search("secret", "ada"), memory.delete_all("ada")):
            with pytest.raises(ProviderError, match="another user"):
                await call
        with pytest.raises(NotFoundError):
            await memory.get(record.id, user_id="ada")
        assert (await memory.get(record.id)).content == "a secret"


@pytest.mark.parametrize(
    "text", [None, 3, "", "{", "[]", "{}", '{"record": {}}', "[" * 100_000, json.dumps({"record": 1})]
)
def test_damaged_metadata_is_a_provider_error(text: object) -> None:
    with pytest.raises(ProviderError, match="damaged"):
        Stored.from_text(text, "tea")


async def test_many_slow_writes_are_under_way_at_once_but_not_too_many() -> None:
    class Slow(DictVendor):
        running = most = 0

        async def create(self, item: MemoryInput, key: str) -> Stored:
            return await self.slowly(super().create(item, key))

        async def remove(self, stored: Stored) -> bool:
            return await self.slowly(super().remove(stored))

        async def slowly(self, write: Coroutine[Any, Any, Any]) -> Any:
            self.running += 1
            self.most = max(self.most, self.running)
            await asyncio.sleep(0.005)
            self.running -= 1
            return await write

    vendor = Slow({})
    async with AsyncMemory(vendor) as memory:
        outcomes = await memory.add_many({"content": f"note {n}", "user_id": "ada"} for n in range(200))
        assert [getattr(one, "content", one) for one in outcomes] == [f"note {n}" for n in range(200)]
        assert vendor.most == vendor.traits.most_writes
        vendor.most = 0
        assert await memory.delete_all("ada") == 200
        assert vendor.most == vendor.traits.most_writes


async def test_looking_for_duplicates_lists_what_a_user_said_once() -> None:
    class Counting(DictVendor):
        listings = 0

        async def scan(self, user_id: str, until: datetime | None = None) -> AsyncGenerator[Stored, None]:
            self.listings += 1
            async for stored in super().scan(user_id, until):
                yield stored

        async def rank(self, query: SearchQuery, count: int) -> Ranked:
            listings = self.listings
            ranked = await super().rank(query, count)
            self.listings = listings  # this vendor searches by listing
            return ranked

    class Elsewhere(DictVendor):
        def store_name(self) -> str:
            return "another process"

    vendor = Counting({})
    async with AsyncMemory(vendor, on_duplicate="supersede") as memory, AsyncMemory(Elsewhere(vendor.rows)) as other:
        await memory.add("Ada drinks tea", user_id="ada", on_duplicate="keep")
        for number in range(10):
            await memory.add(f"fact {number}", user_id="ada")
        assert vendor.listings == 1
        first = await memory.add("ada drinks TEA.", user_id="ada")
        assert len(first.supersedes) == 1
        await memory.update(first.id, user_id="ada", content="Ada drinks coffee")
        second = await memory.add("Ada drinks coffee!", user_id="ada")
        assert second.supersedes == [first.id]
        await memory.update(second.id, user_id="ada", supersedes=None)
        assert set((await memory.add("Ada drinks coffee", user_id="ada")).supersedes) == {first.id, second.id}
        # What another process wrote is found by the vendor's search, without listing.
        foreign = await other.add("Ada plays chess", user_id="ada")
        assert (await memory.add("Ada plays chess", user_id="ada")).supersedes == [foreign.id]
        assert vendor.listings == 1
