"""The cursor of `list`: opaque, short, and good for one listing only."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fake_provider import NOON
from hypothesis import given
from hypothesis import strategies as st

from openproto import InvalidRequestError
from openproto.ids import new_id
from openproto.requests import ListQuery, build
from openproto.stores.cursors import decode_cursor, encode_cursor

MOMENTS = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC))
IDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=40)


def listing(**fields: Any) -> ListQuery:
    return build(ListQuery, {"user_id": "ada", **fields})


@given(MOMENTS, IDS)
def test_a_cursor_leads_back_to_where_it_was_made(created_at: datetime, id: str) -> None:
    cursor = encode_cursor(listing(), created_at, id)
    assert decode_cursor(listing(cursor=cursor)) == (created_at, id)


def test_no_cursor_is_the_beginning() -> None:
    assert decode_cursor(listing()) is None


def test_the_cursor_of_a_store_of_this_project_is_short() -> None:
    assert len(encode_cursor(listing(), NOON, new_id("ada"))) <= 256


def test_a_cursor_can_stand_in_an_url() -> None:
    cursor = encode_cursor(listing(), NOON, "ÿþý>?~")
    assert cursor.replace("-", "a").replace("_", "a").isalnum()


FILTERS: list[dict[str, Any]] = [
    {"user_id": "bob"},
    {"scope": "a"},
    {"scope": "b"},
    {"tag": "a"},
    {"since": NOON},
    {"until": NOON},
    {"as_of": NOON},
    {"as_of": NOON + timedelta(microseconds=1)},
]


@pytest.mark.parametrize("other", FILTERS, ids=str)
def test_a_cursor_of_another_listing_is_refused(other: dict[str, Any]) -> None:
    cursor = encode_cursor(listing(), NOON, "m1")
    with pytest.raises(InvalidRequestError, match="cursor"):
        decode_cursor(listing(**other, cursor=cursor))


def test_filters_do_not_run_into_each_other() -> None:
    cursor = encode_cursor(listing(scope="a", tag=None), NOON, "m1")
    with pytest.raises(InvalidRequestError):
        decode_cursor(listing(scope=None, tag="a", cursor=cursor))


def test_the_page_size_may_change_on_the_way() -> None:
    cursor = encode_cursor(listing(limit=10), NOON, "m1")
    assert decode_cursor(listing(limit=20, cursor=cursor)) == (NOON, "m1")


def test_another_spelling_of_the_same_scope_is_the_same_listing() -> None:
    cursor = encode_cursor(listing(scope="a"), NOON, "m1")
    assert decode_cursor(listing(scope="a/*", cursor=cursor)) == (NOON, "m1")


@given(st.data())
def test_a_cursor_changed_anywhere_is_refused_or_harmless(data: st.DataObject) -> None:
    cursor = encode_cursor(listing(), NOON, "m1-äö")
    place = data.draw(st.integers(0, len(cursor) - 1))
    changed = cursor[:place] + data.draw(st.characters(exclude_categories=["Cs"])) + cursor[place + 1 :]
    check(changed)


@given(st.data())
def test_a_cursor_cut_short_is_refused_or_harmless(data: st.DataObject) -> None:
    cursor = encode_cursor(listing(), NOON, "m1-äö")
    check(cursor[: data.draw(st.integers(1, len(cursor) - 1))])


@given(st.text(min_size=1, max_size=60))
def test_any_text_is_refused_as_a_cursor(text: str) -> None:
    with pytest.raises(InvalidRequestError):
        decode_cursor(listing(cursor=text))


@given(st.binary(max_size=60))
def test_any_bytes_are_refused_as_a_cursor(raw: bytes) -> None:
    with pytest.raises(InvalidRequestError):
        decode_cursor(listing(cursor=base64.urlsafe_b64encode(raw).decode() or "A"))


def check(cursor: str) -> None:
    """Whatever was done to a cursor, a store gets an InvalidRequestError or a position that it can compare with."""
    try:
        position = decode_cursor(listing(cursor=cursor))
    except InvalidRequestError:
        return
    assert position is not None
    created_at, id = position
    assert created_at.utcoffset() == timedelta(0)
    assert id
    assert "\0" not in id


@pytest.mark.parametrize("id", ["a\0b", "\0"])
def test_a_cursor_that_hides_what_no_store_can_hold_is_refused(id: str) -> None:
    with pytest.raises(InvalidRequestError):
        decode_cursor(listing(cursor=encode_cursor(listing(), NOON, id)))


@pytest.mark.parametrize("micros", [2**62, -(2**62), 2**63 - 1, -(2**63)])
def test_a_cursor_outside_of_time_is_refused(micros: int) -> None:
    raw = base64.urlsafe_b64decode(encode_cursor(listing(), NOON, "m1") + "==")
    cursor = base64.urlsafe_b64encode(micros.to_bytes(8, signed=True) + raw[8:]).rstrip(b"=").decode()
    with pytest.raises(InvalidRequestError):
        decode_cursor(listing(cursor=cursor))


def test_a_cursor_without_an_id_is_refused() -> None:
    with pytest.raises(InvalidRequestError):
        decode_cursor(listing(cursor=encode_cursor(listing(), NOON, "")))
