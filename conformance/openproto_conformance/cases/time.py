"""Validity: which records are current, now and at any moment."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from openproto import InvalidRequestError
from openproto_conformance.bench import Bench
from openproto_conformance.case import Area
from openproto_conformance.checks import equal, raises

area = Area("time")

JANUARY, FEBRUARY, MARCH = (datetime(2024, month, 1, tzinfo=UTC) for month in (1, 2, 3))
TICK = timedelta(microseconds=1)
FAR = datetime(2999, 1, 1, tzinfo=UTC)

INTERVALS: dict[str, dict[str, datetime]] = {
    "always": {},
    "from january": {"valid_from": JANUARY},
    "until march": {"valid_to": MARCH},
    "january to february": {"valid_from": JANUARY, "valid_to": FEBRUARY},
    "february to march": {"valid_from": FEBRUARY, "valid_to": MARCH},
    "in the future": {"valid_from": FAR},
    "until the future": {"valid_to": FAR},
}


def is_current(interval: dict[str, datetime], moment: datetime) -> bool:
    """Say whether a record of that validity is current: from its start on, and before its end."""
    return interval.get("valid_from", moment) <= moment < interval.get("valid_to", FAR + TICK * 2)


@area.case("add", "list", "search", features=("temporal",), hint="now: search drops what is not valid yet or no longer")
async def search_shows_what_is_current(bench: Bench) -> None:
    """`search` and `context` return only what is current now; `list` returns everything."""
    await _plant(bench)
    now = {name for name, interval in INTERVALS.items() if is_current(interval, datetime.now(UTC))}
    equal(await _searched(bench), now, "what search finds")
    equal(await _cited(bench), now, "what context cites")
    everything = {record.content.removeprefix("valid ") for record in await bench.inventory(bench.user())}
    equal(everything, set(INTERVALS), "what list holds")


@area.case(
    "add", "list", "search", features=("temporal",), hint="as_of: valid_from <= t < valid_to, to the microsecond"
)
async def as_of_is_a_moment_of_validity(bench: Bench) -> None:
    """With `as_of`, `list`, `search`, and `context` return what was current then: start included, end excluded."""
    await _plant(bench)
    for moment in (*(edge + step for edge in (JANUARY, FEBRUARY, MARCH, FAR) for step in (-TICK, TICK * 0, TICK)),):
        wanted = {name for name, interval in INTERVALS.items() if is_current(interval, moment)}
        listed = {record.content.removeprefix("valid ") for record in await bench.inventory(bench.user(), as_of=moment)}
        equal(listed, wanted, f"what list holds as of {moment}")
        equal(await _searched(bench, as_of=moment), wanted, f"what search finds as of {moment}")
        equal(await _cited(bench, as_of=moment), wanted, f"what context cites as of {moment}")


@area.case(
    "add", "search", features=("temporal",), hint="the limit and validity: filter first, or fetch on until filled"
)
async def expired_records_take_no_place(bench: Bench) -> None:
    """Records that are not current take no place among the limited results, however well they match."""
    user = bench.user()
    expired = {"content": "the river note, the river note", "user_id": user, "valid_to": MARCH}
    await bench.add_many([expired] * bench.size(500, 150))
    current = await bench.add("one river note of today", user_id=user)
    equal(await bench.found("the river note", user, limit=1), [current.id], "the ids found with limit=1")


@area.case(
    "add", "update", "search", features=("temporal",), hint="`update` of valid_to: it must reach the index as well"
)
async def an_update_ends_and_revives_validity(bench: Bench) -> None:
    """Setting `valid_to` in the past ends a record's validity, and clearing it gives it back."""
    user = bench.user()
    record = await bench.add("the zeppelin is grey", user_id=user)
    equal((await bench.client.update(record.id, valid_to=MARCH)).valid_to, MARCH, "valid_to after the update")
    equal(await bench.found("zeppelin", user), [], "what is found once it has ended")
    equal(await bench.found("zeppelin", user, as_of=MARCH - TICK), [record.id], "what was found before it ended")
    await bench.client.update(record.id, valid_to=None)
    equal(await bench.found("zeppelin", user), [record.id], "what is found once the end was cleared")


@area.case("add", "get", "update", hint="`update` of valid_to: compared with the valid_from that the record has")
async def validity_must_hold_a_moment(bench: Bench) -> None:
    """An end that is not later than the start is invalid_request, in `add` and against the stored start."""
    user = bench.user()
    for end in (FEBRUARY, JANUARY):
        await raises(InvalidRequestError, bench.client.add, "note", user_id=user, valid_from=FEBRUARY, valid_to=end)
    record = await bench.add("note", user_id=user, valid_from=FEBRUARY)
    for end in (FEBRUARY, JANUARY):
        await raises(InvalidRequestError, bench.client.update, record.id, valid_to=end)
    equal(await bench.client.get(record.id), record, "the record after the refusals")


async def _plant(bench: Bench) -> None:
    user = bench.user()
    await bench.add_many([{"content": f"valid {name}", "user_id": user, **span} for name, span in INTERVALS.items()])


async def _searched(bench: Bench, **options: Any) -> set[str]:
    hits = await bench.client.search("valid", bench.user(), limit=100, **options)
    return {hit.memory.content.removeprefix("valid ") for hit in hits}


async def _cited(bench: Bench, **options: Any) -> set[str]:
    block = await bench.client.context("valid", bench.user(), token_budget=10_000, **options)
    return {line.rpartition(" [")[0].removeprefix("valid ") for line in block.text.splitlines()}
