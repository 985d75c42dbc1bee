"""What every store shares: the words of keyword search, the ids of records, and the cursors of `list`."""

from __future__ import annotations

import base64
import unicodedata
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from fake_provider import NOON
from hypothesis import given
from hypothesis import strategies as st

from openproto import InvalidRequestError, ids
from openproto.ids import new_id, parse_id
from openproto.requests import ListQuery, build
from openproto.stores.cursors import decode_cursor, encode_cursor
from openproto.stores.words import MAX_QUERY_TERMS, STOP_WORDS, query_terms, terms, words

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


@given(TEXT)
def test_a_text_has_the_same_words_and_distinct_terms_however_it_is_composed(text: str) -> None:
    found = words(text)
    assert words(unicodedata.normalize("NFC", text)) == words(unicodedata.normalize("NFD", text))
    assert all(word and word == "".join(word.split()) for word in found)
    numbers = terms(text)
    assert len(numbers) == len(set(numbers))
    assert all(0 <= term < 2**64 for term in numbers)
    query = query_terms(text)  # looked up by terms that the text would be stored under
    assert {*query.terms, *query.variants} <= set(numbers)
    assert set(query.terms).isdisjoint(query.variants)
    assert bool(query.terms) == bool(found)


def test_the_words_that_say_nothing_are_looked_up_only_where_there_are_no_others() -> None:
    assert query_terms("what is the name of the dog?").terms == query_terms("name dog").terms
    assert set(query_terms("who am I").terms) == set(terms("who am I"))
    assert all(words(word)[0] == word for word in STOP_WORDS)
    long = [f"longer{i:03}" for i in range(MAX_QUERY_TERMS)]  # and short words not where there are too many long ones
    assert query_terms(" ".join(["ox", *long, "emu"])) == (query_terms(" ".join(long)).terms, [], [])


def test_english_words_of_one_stem_are_one_term_which_is_the_same_in_every_thread_and_process(run_python: Any) -> None:
    assert len({*query_terms("the running").terms, *query_terms("the runs").terms, *query_terms("the run").terms}) == 1
    text = " ".join(f"walking{i} runners{i} quickly{i}" for i in range(200))
    with ThreadPoolExecutor(8) as pool:
        assert len({frozenset(found) for found in pool.map(lambda _: terms(text), range(32))}) == 1
    ended = run_python("from openproto.stores.words import terms; print(terms('green tea'))")
    assert ended.stdout.strip() == str(terms("green tea"))


def test_ids_are_unique_across_threads() -> None:
    with ThreadPoolExecutor(8) as pool:
        batches = list(pool.map(lambda _: [new_id("ada") for _ in range(2_000)], range(8)))
    assert len({id for batch in batches for id in batch}) == 16_000
    assert all(batch == sorted(batch) for batch in batches)


def test_a_forked_process_does_not_draw_what_its_parent_draws(run_python: Any) -> None:
    ended = run_python(
        "import os; from openproto import ids; ids.new_id('ada'); read, write = os.pipe(); child = os.fork() == 0; "
        "drawn = str(ids._bits(64)).encode(); os.write(write, drawn) and os._exit(0) if child else None; "
        "print(os.read(read, 100) != drawn)"
    )
    assert ended.stdout.strip() == "True"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Give the module a clock that takes its milliseconds from a list, and forget what it made before."""
    times: list[int] = []
    monkeypatch.setattr(ids, "time", SimpleNamespace(time_ns=lambda: times.pop(0) * 1_000_000 + 456_789))
    monkeypatch.setattr(ids, "_last_ms", 0)
    monkeypatch.setattr(ids, "_last_random", 0)
    return times


def test_ids_increase_though_the_clock_goes_back(clock: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    clock += [5_000_000, 4_000_000, 4_000_000, 6_000_000]
    made = [new_id("ada") for _ in range(4)]
    assert made == sorted(set(made))
    clock += [6_000_000] * 3
    monkeypatch.setattr(ids, "_last_random", 2**62 - 1)
    made += [new_id("ada") for _ in range(3)]
    assert made == sorted(set(made))
    assert uuid.UUID(made[4]).int >> 80 == 6_000_001


def test_an_id_is_a_uuid_of_version_8_with_its_milliseconds_and_the_shard_bits_of_its_user(clock: list[int]) -> None:
    clock += [1_700_000_000_123] * 101
    text = new_id("ada")
    made = uuid.UUID(text)
    assert (made.version, made.variant, made.int >> 80) == (8, uuid.RFC_4122, 1_700_000_000_123)
    assert str(parse_id(text)) == text
    assert len({uuid.UUID(new_id("ada")).int >> 64 & 0xFFF for _ in range(50)}) == 1
    assert len({uuid.UUID(new_id(f"user {i}")).int >> 64 & 0xFFF for i in range(50)}) > 25


@pytest.mark.parametrize(
    "text",
    [
        *("", "m1", "*", "0198B5A7-0000-8000-8000-000000000000", "0198b5a7000080008000000000000000"),
        *("{0198b5a7-0000-8000-8000-000000000000}", "urn:uuid:0198b5a7-0000-8000-8000-000000000000"),
        *(" 0198b5a7-0000-8000-8000-000000000000", "0198b5a7-0000-8000-8000-000000000000\n"),
    ],
)
def test_any_other_spelling_is_not_an_id(text: str) -> None:
    assert parse_id(text) is None


MOMENTS = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC))
IDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=40)


def listing(**fields: Any) -> ListQuery:
    return build(ListQuery, **{"user_id": "ada", **fields})


@given(MOMENTS, IDS)
def test_a_cursor_leads_back_in_pages_of_another_size_and_spelling(created_at: datetime, id: str) -> None:
    cursor = encode_cursor(listing(scope="a", limit=10), created_at, id)
    assert decode_cursor(listing(scope="a/*", limit=20, cursor=cursor)) == (created_at, id)


def test_a_cursor_outside_of_time_or_whose_id_no_store_can_hold_is_refused() -> None:
    raw = base64.urlsafe_b64decode(encode_cursor(listing(), NOON, "m1") + "==")
    moments = (2**62, -(2**62), 2**63 - 1, -(2**63))
    changed = [base64.urlsafe_b64encode(micros.to_bytes(8, signed=True) + raw[8:]).rstrip(b"=") for micros in moments]
    for cursor in (*map(bytes.decode, changed), *(encode_cursor(listing(), NOON, id) for id in ("a\0b", "\0", ""))):
        with pytest.raises(InvalidRequestError):
            decode_cursor(listing(cursor=cursor))
