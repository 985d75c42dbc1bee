"""The context block never exceeds its budget, whatever the texts and whatever counts the tokens."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence

import pytest
from fake_provider import FakeProvider, record
from hypothesis import given
from hypothesis import strategies as st

from openproto import AsyncMemory, MemoryPage, MemoryRecord, SearchResult
from openproto.context import estimate_tokens, fill_context
from openproto.models import ContextBlock
from openproto.requests import ContextQuery, ListQuery, SearchQuery


def hits(*contents: str) -> list[SearchResult]:
    return [SearchResult(memory=record(f"m{i}", content), score=1 / (i + 1)) for i, content in enumerate(contents)]


def build_context(
    found: Sequence[SearchResult],
    budget: int,
    count: Callable[[str], int],
    newest: Sequence[MemoryRecord] = (),
    **options: bool,
) -> ContextBlock:
    """Build the block of what a search finds and a listing, three records a page, then holds."""

    async def search(query: SearchQuery) -> Sequence[SearchResult]:
        return found

    async def list_page(query: ListQuery) -> MemoryPage:
        start = int(query.cursor or 0)
        more = str(start + 3) if start + 3 < len(newest) else None
        return MemoryPage(items=[*newest[start : start + 3]], next_cursor=more)

    query = ContextQuery.model_validate({"query": "tea", "user_id": "ada", "token_budget": budget, **options})
    return asyncio.run(fill_context(query, count, search, list_page))


def records(*contents: str) -> list[MemoryRecord]:
    return [record(f"n{number}", content) for number, content in enumerate(contents)]


def by_words(text: str) -> int:
    return len(text.split())


COUNTERS: list[Callable[[str], int]] = [
    estimate_tokens,
    len,
    by_words,
    lambda text: len(text.encode()),
    lambda text: len(re.findall(r"\w+|\W", text)),
    lambda text: len(text) ** 2,
    lambda text: 7 * text.count("e") + len(text) // 3,  # a rare letter costs much: nothing like additive
    lambda text: sum(map(ord, text)) % 97,  # not even monotone
    lambda text: 1_000_000,
]
counters = st.sampled_from(COUNTERS)
contents = st.lists(st.text(min_size=1, max_size=60).filter(str.strip), max_size=8)


@given(contents, st.integers(1, 200), counters)
def test_the_text_never_exceeds_its_budget(texts: list[str], budget: int, count: Callable[[str], int]) -> None:
    block = build_context(hits(*texts[::2]), budget, count, records(*texts))
    assert block.text == "" or count(block.text) <= budget


@given(contents, st.integers(1, 200), counters)
def test_the_token_count_is_the_true_count(texts: list[str], budget: int, count: Callable[[str], int]) -> None:
    block = build_context(hits(*texts[::2]), budget, count, records(*texts))
    assert block.token_count == (count(block.text) if block.text else 0)


@given(contents, st.integers(1, 200), counters)
def test_each_line_ends_with_the_marker_of_its_citation(
    texts: list[str], budget: int, count: Callable[[str], int]
) -> None:
    block = build_context(hits(*texts[::2]), budget, count, records(*texts))
    lines = block.text.split("\n") if block.text else []
    assert [line.rpartition(" ")[2] for line in lines] == [f"[{cited.memory_id}]" for cited in block.citations]


@given(contents, st.integers(1, 200), counters)
def test_the_best_records_come_first(texts: list[str], budget: int, count: Callable[[str], int]) -> None:
    block = build_context(hits(*texts[::2]), budget, count, records(*texts))
    assert [c.score for c in block.citations] == sorted((c.score for c in block.citations), reverse=True)


@given(contents)
def test_with_budget_enough_every_distinct_memory_is_there(texts: list[str]) -> None:
    block = build_context(hits(*texts), 1_000_000, len)
    distinct = {" ".join(text.split()).casefold() for text in texts}
    assert len(block.citations) == len(distinct)


def test_nothing_found_is_an_empty_text_without_citations() -> None:
    block = build_context([], 100, len)
    assert (block.text, block.citations, block.token_count) == ("", [], 0)


def test_duplicates_are_left_out_however_they_are_spaced_or_capitalised() -> None:
    block = build_context(hits("Likes tea", "likes   TEA\n", "likes coffee"), 1000, len)
    assert block.text == "Likes tea [m0]\nlikes coffee [m2]"


def test_a_memory_of_several_lines_stands_on_one() -> None:
    assert build_context(hits("one\ntwo\r\n\tthree"), 100, len).text == "one two three [m0]"


def test_an_oversized_first_memory_is_cut_at_a_word_and_keeps_its_marker() -> None:
    block = build_context(hits("alpha beta gamma delta"), 16, len)
    assert block.text == "alpha beta [m0]"


def test_the_cut_keeps_as_many_words_as_fit() -> None:
    words = " ".join(f"w{i}" for i in range(100))
    assert build_context(hits(words), 38, by_words).token_count == 38


def test_an_oversized_first_memory_of_one_word_is_left_out() -> None:
    block = build_context(hits("antidisestablishmentarianism"), 10, len)
    assert (block.text, block.citations) == ("", [])


def test_one_that_does_not_fit_is_passed_over_for_the_next() -> None:
    block = build_context(hits("tea", "x" * 100, "milk"), 20, len)
    assert block.text == "tea [m0]\nmilk [m2]"


def test_only_the_first_memory_is_ever_cut() -> None:
    block = build_context(hits("tea", "alpha beta gamma delta"), 22, len)
    assert block.text == "tea [m0]"


def test_a_duplicate_of_a_memory_that_did_not_fit_may_still_come() -> None:
    assert build_context(hits("x" * 50, "tea"), 10, len).text == "tea [m1]"


def test_what_no_search_found_follows_with_score_0_while_the_budget_lasts() -> None:
    newest = records("likes tea", "likes milk", "is from Ulm", "has a cat", "x" * 50, "has a dog")
    block = build_context(hits("likes tea"), 90, len, newest)
    assert block.text == "likes tea [m0]\nlikes milk [n1]\nis from Ulm [n2]\nhas a cat [n3]\nhas a dog [n5]"
    assert [cited.score for cited in block.citations] == [1, 0, 0, 0, 0]


def test_only_what_is_relevant_when_nothing_else_is_wanted() -> None:
    block = build_context(hits("likes tea"), 500, len, records("likes milk"), relevant_only=True)
    assert block.text == "likes tea [m0]"


def test_a_full_block_asks_for_no_newer_records() -> None:
    # 35 characters: no room for a letter and a marker.
    block = build_context(hits("likes tea", "likes milk"), 35, len, records("milk", "nuts"))
    assert block.text == "likes tea [m0]\nlikes milk [m1]"


def test_a_record_that_was_found_and_did_not_fit_is_not_tried_again() -> None:
    found = hits("likes tea", "x" * 500)
    block = build_context(found, 100, len, [result.memory for result in found] + records("likes milk"))
    assert block.text == "likes tea [m0]\nlikes milk [n0]"


@pytest.mark.parametrize(
    ("words", "cut"),
    [
        ("アレルギーはナッツです", "アレル [m0]"),
        ("我对坚果过敏", "我对坚果 [m0]"),
        ("ฉันแพ้ถั่ว", "ฉัน [m0]"),
        ("allergic", ""),
        ("我 allergic", "我 [m0]"),
    ],
)
def test_a_text_without_spaces_is_cut_between_characters_and_others_between_words(words: str, cut: str) -> None:
    assert build_context(hits(words), 9, len).text == cut


@pytest.mark.parametrize(("text", "tokens"), [("", 0), ("a", 1), ("abcd", 1), ("abcde", 2), ("日本", 2), ("🙂🙂", 2)])
def test_the_default_counter_takes_four_bytes_a_token_rounded_up(text: str, tokens: int) -> None:
    assert estimate_tokens(text) == tokens


async def test_the_client_counts_with_the_counter_that_it_was_given() -> None:
    async with AsyncMemory(FakeProvider(), token_counter=by_words) as memory:
        block = await memory.context("tea", "ada", token_budget=3)
    assert (block.text, block.token_count) == ("likes tea [m1]", 3)


async def test_without_a_counter_the_client_estimates() -> None:
    async with AsyncMemory(FakeProvider()) as memory:
        block = await memory.context("tea", "ada")
    assert block.token_count == estimate_tokens(block.text)


@pytest.mark.parametrize(("budget", "limit"), [(1, 10), (500, 50), (100_000, 100)])
async def test_a_larger_budget_asks_for_more_candidates_up_to_the_limit_of_search(budget: int, limit: int) -> None:
    provider = FakeProvider()
    async with AsyncMemory(provider) as memory:
        await memory.context("tea", "ada", token_budget=budget)
    assert provider.requests[0].limit == limit
