"""The cursor of `list`: opaque, and good for one listing only."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fake_provider import NOON
from hypothesis import given
from hypothesis import strategies as st

from openproto import InvalidRequestError
from openproto.requests import ListQuery, build
from openproto.stores.cursors import decode_cursor, encode_cursor

MOMENTS = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC))
IDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=40)


def listing(**fields: Any) -> ListQuery:
    return build(ListQuery, **{"user_id": "ada", **fields})


@given(MOMENTS, IDS)
def test_a_cursor_leads_back_in_pages_of_another_size_and_spelling(created_at: datetime, id: str) -> None:
    cursor = encode_cursor(listing(scope="a", limit=10), created_at, id)
    assert decode_cursor(listing(scope="a/*", limit=20, cursor=cursor)) == (created_at, id)


@given(st.data())
def test_a_cursor_that_was_changed_or_cut_is_refused_or_harmless(data: st.DataObject) -> None:
    cursor = encode_cursor(listing(), NOON, "m1-äö")
    place = data.draw(st.integers(0, len(cursor) - 1))
    changed = cursor[:place] + data.draw(st.characters(exclude_categories=["Cs"])) + cursor[place + 1 :]
    for text in (changed, cursor[: place or 1]):
        try:
            position = decode_cursor(listing(cursor=text))
        except InvalidRequestError:
            continue
        assert position is not None
        created_at, id = position
        assert created_at.utcoffset() == timedelta(0)
        assert id
        assert "\0" not in id


@given(st.text(min_size=1, max_size=60), st.binary(max_size=60))
def test_any_text_and_any_bytes_are_refused_as_a_cursor(text: str, raw: bytes) -> None:
    for cursor in (text, base64.urlsafe_b64encode(raw).decode() or "A"):
        with pytest.raises(InvalidRequestError):
            decode_cursor(listing(cursor=cursor))


def test_a_cursor_outside_of_time_or_whose_id_no_store_can_hold_is_refused() -> None:
    raw = base64.urlsafe_b64decode(encode_cursor(listing(), NOON, "m1") + "==")
    moments = (2**62, -(2**62), 2**63 - 1, -(2**63))
    changed = [base64.urlsafe_b64encode(micros.to_bytes(8, signed=True) + raw[8:]).rstrip(b"=") for micros in moments]
    for cursor in (*map(bytes.decode, changed), *(encode_cursor(listing(), NOON, id) for id in ("a\0b", "\0", ""))):
        with pytest.raises(InvalidRequestError):
            decode_cursor(listing(cursor=cursor))
