"""What every store shares: the words of keyword search, the ids of records, and the arithmetic of scores."""

from __future__ import annotations

import unicodedata
import uuid
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openproto import ids
from openproto.ids import new_id, parse_id
from openproto.stores.ranking import coverage, idf
from openproto.stores.words import MAX_QUERY_TERMS, STOP_WORDS, query_terms, terms, words

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


@given(TEXT)
def test_a_text_has_the_same_words_every_time(text: str) -> None:
    assert words(text) == words(text)


@given(TEXT)
def test_composed_and_decomposed_text_have_the_same_words(text: str) -> None:
    assert words(unicodedata.normalize("NFC", text)) == words(unicodedata.normalize("NFD", text))


@given(TEXT)
def test_no_word_is_empty_or_holds_a_space(text: str) -> None:
    assert all(word and word == "".join(word.split()) for word in words(text))


@given(TEXT)
def test_every_term_fits_into_64_bits_and_comes_once(text: str) -> None:
    found = terms(text)
    assert len(found) == len(set(found))
    assert all(0 <= term < 2**64 for term in found)


@given(TEXT)
def test_a_query_is_looked_up_by_terms_that_its_text_would_be_stored_under(text: str) -> None:
    found = query_terms(text)
    assert {*found.terms, *found.variants} <= set(terms(text))
    assert set(found.terms).isdisjoint(found.variants)
    assert bool(found.terms) == bool(words(text))


def test_the_words_that_say_nothing_are_not_looked_up() -> None:
    assert query_terms("what is the name of the dog?").terms == query_terms("name dog").terms


def test_a_query_of_nothing_but_such_words_keeps_them() -> None:
    assert set(query_terms("who am I").terms) == set(terms("who am I"))


def test_a_long_query_is_looked_up_by_its_longest_words() -> None:
    long = [f"longer{i:03}" for i in range(MAX_QUERY_TERMS)]
    assert query_terms(" ".join(["ox", *long, "emu"])) == (query_terms(" ".join(long)).terms, [], [])


def test_the_words_that_say_nothing_are_spelled_as_words_are() -> None:
    assert all(words(word)[0] == word for word in STOP_WORDS)


@given(st.text("abc ", min_size=1, max_size=20))
def test_case_and_order_do_not_change_the_terms(text: str) -> None:
    assert set(terms(text)) == set(terms(text.upper())) == set(terms(" ".join(reversed(text.split()))))


def test_a_word_with_accents_is_found_without_them_and_best_with_them() -> None:
    with_accents, without = query_terms("Ångström"), query_terms("angstrom")
    assert with_accents.terms == without.terms
    assert set(with_accents.variants) - set(without.variants)


def test_forms_of_compatibility_are_one_word() -> None:
    assert words("the ＴＥＡ ﬁne") == ["the", "tea", "fine"]


def test_english_words_of_one_stem_are_one_term() -> None:
    assert len({*query_terms("the running").terms, *query_terms("the runs").terms, *query_terms("the run").terms}) == 1


def test_scripts_without_spaces_become_overlapping_pairs() -> None:
    assert words("日本語")[:2] == ["日本", "本語"]


def test_a_run_of_two_or_one_stays_whole() -> None:
    assert words("日本 茶")[:2] == ["日本", "茶"]


def test_scripts_that_mix_in_one_run_are_parted() -> None:
    assert words("iPhone用ケース")[:4] == ["iphone", "用ケ", "ケー", "ース"]


def test_the_marks_of_indic_scripts_stay_with_their_letters() -> None:
    assert not set(words("दिन")) & set(words("दान"))


def test_punctuation_and_underscores_part_words() -> None:
    assert words("a_b-c.d/e")[:5] == ["a", "b", "c", "d", "e"]


def test_terms_do_not_change_between_processes(run_python: Any) -> None:
    told = run_python("from openproto.stores.words import terms; print(terms('green tea'))")
    assert told.stdout.strip() == str(terms("green tea"))


def test_words_are_the_same_in_every_thread() -> None:
    text = " ".join(f"walking{i} runners{i} quickly{i}" for i in range(200))
    with ThreadPoolExecutor(8) as pool:
        assert len({frozenset(found) for found in pool.map(lambda _: terms(text), range(32))}) == 1


# -- ids --------------------------------------------------------------------------------------------------------------


def test_ids_are_strictly_increasing() -> None:
    made = [new_id("ada") for _ in range(5_000)]
    assert all(one < two for one, two in pairwise(made))


def test_ids_are_unique_across_threads() -> None:
    with ThreadPoolExecutor(8) as pool:
        batches = list(pool.map(lambda _: [new_id("ada") for _ in range(2_000)], range(8)))
    assert len({id for batch in batches for id in batch}) == 16_000
    assert all(batch == sorted(batch) for batch in batches)


def test_ids_increase_though_the_clock_goes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([5_000_000_000_000, 4_000_000_000_000, 4_000_000_000_000, 6_000_000_000_000])
    fresh(monkeypatch, now)
    made = [new_id("ada") for _ in range(4)]
    assert made == sorted(set(made))


def test_ids_increase_though_the_random_part_overflows(monkeypatch: pytest.MonkeyPatch) -> None:
    fresh(monkeypatch, iter([5_000_000_000_000] * 3))
    monkeypatch.setattr(ids, "_last_ms", 5_000_000)
    monkeypatch.setattr(ids, "_last_random", 2**62 - 1)
    made = [new_id("ada") for _ in range(3)]
    assert made == sorted(set(made))
    assert uuid.UUID(made[0]).int >> 80 == 5_000_001


def fresh(monkeypatch: pytest.MonkeyPatch, nanoseconds: object) -> None:
    """Give the module a clock of its own, and forget what it made before."""
    monkeypatch.setattr(ids, "time", SimpleNamespace(time_ns=lambda: next(nanoseconds)))  # type: ignore[call-overload]
    monkeypatch.setattr(ids, "_last_ms", 0)
    monkeypatch.setattr(ids, "_last_random", 0)


def test_an_id_holds_the_milliseconds_of_its_making(monkeypatch: pytest.MonkeyPatch) -> None:
    fresh(monkeypatch, iter([1_700_000_000_123_456_789]))
    assert uuid.UUID(new_id("ada")).int >> 80 == 1_700_000_000_123


def test_an_id_is_a_uuid_of_version_8() -> None:
    made = uuid.UUID(new_id("ada"))
    assert (made.version, made.variant) == (8, uuid.RFC_4122)


def test_the_ids_of_one_user_share_their_shard_bits() -> None:
    assert len({uuid.UUID(new_id("ada")).int >> 64 & 0xFFF for _ in range(50)}) == 1
    assert len({uuid.UUID(new_id(f"user {i}")).int >> 64 & 0xFFF for i in range(50)}) > 25


def test_an_id_is_read_back() -> None:
    made = new_id("ada")
    assert str(parse_id(made)) == made


@pytest.mark.parametrize(
    "text",
    [
        "",
        "m1",
        "*",
        "0198B5A7-0000-8000-8000-000000000000",
        "0198b5a7000080008000000000000000",
        "{0198b5a7-0000-8000-8000-000000000000}",
        "urn:uuid:0198b5a7-0000-8000-8000-000000000000",
        " 0198b5a7-0000-8000-8000-000000000000",
        "0198b5a7-0000-8000-8000-000000000000\n",
    ],
)
def test_any_other_spelling_is_no_id(text: str) -> None:
    assert parse_id(text) is None


# -- scores -----------------------------------------------------------------------------------------------------------


def test_a_rare_word_weighs_more_than_a_common_one() -> None:
    assert idf(100, 1) > idf(100, 10) > idf(100, 100) > 0


def test_a_memory_with_every_word_is_covered_whole() -> None:
    shares = coverage(10, [[1, 2], [1]])
    assert shares[1] == pytest.approx(1.0)
    assert 0 < shares[2] < 1


def test_a_word_that_no_memory_has_still_counts_against_all() -> None:
    assert coverage(10, [[1], []])[1] < 1


def test_no_words_cover_nothing() -> None:
    assert coverage(10, []) == {}
