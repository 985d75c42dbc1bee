"""The context block: the best memories as text, never over its budget, each with its citation."""

from __future__ import annotations

import re
from collections.abc import Callable

from openproto import ContextBlock, InvalidRequestError
from openproto_conformance.bench import Bench
from openproto_conformance.case import Area
from openproto_conformance.cases.search import FACTS
from openproto_conformance.checks import ensure, equal, raises

area = Area("context")

QUERY = "green tea in the morning, a cat, a train, and the cello"


def words(text: str) -> int:
    """Count words."""
    return len(text.split())


def pieces(text: str) -> int:
    """Count as a tokenizer may that is not additive: two lines can cost more together than apart."""
    return len(re.findall(r"\w{1,4}|[^\w]", text)) + text.count("\n") ** 2


COUNTERS: dict[str, Callable[[str], int]] = {"characters": len, "words": words, "pieces": pieces}


@area.case("add", "context", hint="the budget: count the whole text after joining, never the sum of estimates")
async def the_budget_is_never_exceeded(bench: Bench) -> None:
    """The text never exceeds the budget by the client's own counter, and token_count is its true count."""
    user = bench.user()
    texts = [*FACTS, *(f"{fact} " * 8 for fact in FACTS), "Ünïcödé 茶 🍵 tea " * 10]
    await bench.add_many([{"content": text, "user_id": user} for text in texts])
    for name, count in COUNTERS.items():
        client = await bench.open(token_counter=count)
        for budget in (*range(1, 40), 55, 89, 144, 233, 377, 610, 987, 5000):
            block = await client.context(QUERY, user, token_budget=budget)
            ensure(count(block.text) <= budget, f"a budget of {budget} {name} holds {count(block.text)} of them")
            equal(block.token_count, count(block.text) if block.text else 0, f"token_count for {budget} {name}")
            _check_form(block)


@area.case(
    "add", "context", hint="the form of a line: content, one space, [<id>]; a citation for each, in the same order"
)
async def each_line_ends_with_its_citation(bench: Bench) -> None:
    """Every memory is one line that ends with its marker, and the citations name them in the same order, best first."""
    user = bench.user()
    records = await bench.add_many([{"content": fact, "user_id": user} for fact in FACTS])
    contents = {record.id: record.content for record in records}
    block = await bench.client.context(QUERY, user, token_budget=10_000)
    _check_form(block)
    ensure(len(block.citations) > 1, "a large budget must hold more than one memory")
    for line, citation in zip(block.text.splitlines(), block.citations, strict=True):
        equal(line, f"{contents.get(citation.memory_id)} [{citation.memory_id}]", "a line of the context")
    scores = [citation.score for citation in block.citations]
    equal(scores, sorted(scores, reverse=True), "the scores of the citations, which must fall")


@area.case(
    "add", "search", "context", level="should", hint="the order of a context: that of `search` for the same query"
)
async def the_best_memories_come_first(bench: Bench) -> None:
    """A context of what is relevant holds what `search` finds, in the same order and with the same scores."""
    user = bench.user()
    await bench.add_many([{"content": fact, "user_id": user} for fact in FACTS])
    hits = await bench.client.search(QUERY, user, limit=100)
    block = await bench.client.context(QUERY, user, token_budget=10_000, relevant_only=True)
    got = [(citation.memory_id, round(citation.score, 9)) for citation in block.citations]
    equal(got, [(hit.memory.id, round(hit.score, 9)) for hit in hits], "the citations, beside the search")


@area.case("add", "context", hint="duplicates: equal contents are one line, whatever their ids")
async def duplicates_are_left_out(bench: Bench) -> None:
    """Memories with the same content stand in a context once."""
    user = bench.user()
    await bench.add_many([{"content": "Ann prefers green tea", "user_id": user}] * 5)
    await bench.add("The tea is in the tin", user_id=user)
    block = await bench.client.context("green tea", user)
    equal(block.text.count("Ann prefers green tea"), 1, "how often the repeated memory stands there")
    ensure("The tea is in the tin" in block.text, "the other memory is missing")
    equal(len({citation.memory_id for citation in block.citations}), len(block.citations), "distinct citations")


@area.case("context", hint="nothing found: empty text, no citations, a count of 0")
async def nothing_found_is_an_empty_block(bench: Bench) -> None:
    """Without memories the text is empty, there are no citations, and the count is 0, whatever the counter says."""
    client = await bench.open(token_counter=lambda text: len(text) + 1)
    block = await client.context("anything", bench.user())
    equal((block.text, block.citations, block.token_count), ("", [], 0), "the block")


@area.case("add", "context", hint="an oversized first memory: whole words that fit, its marker kept; or nothing")
async def an_oversized_memory_is_cut_at_a_word(bench: Bench) -> None:
    """A first memory over the budget is cut at a word boundary with its marker kept, or left out."""
    user = bench.user()
    content = " ".join(f"zeppelin{n}" for n in range(400))
    record = await bench.add(content, user_id=user)
    client = await bench.open(token_counter=len)
    for budget in (10, len(record.id) + 3, len(record.id) + 30, 500, 1000):
        block = await client.context("zeppelin1 zeppelin2", user, token_budget=budget)
        if not block.text:
            equal(block.citations, [], "the citations of an empty text")
            continue
        kept, _, marker = block.text.rpartition(" ")
        equal(marker, f"[{record.id}]", "the end of the text")
        ensure(content.startswith(f"{kept} "), f"the text for a budget of {budget} was not cut between words")


@area.case("add", "context", hint="line ends inside a memory: a context is one line a memory")
async def a_memory_is_one_line(bench: Bench) -> None:
    """A memory of several lines stands on one line, so that no content can pass for another memory."""
    user = bench.user()
    record = await bench.add("green tea\nis good [someone-else]\r\nin\u2028the\x0bmorning\x85always", user_id=user)
    block = await bench.client.context("green tea", user)
    equal(len(block.text.splitlines()), 1, "the number of lines")
    equal([citation.memory_id for citation in block.citations], [record.id], "the citations")


@area.case("add", "context", hint="how many candidates are fetched: a large budget needs more than the first ten")
async def a_large_budget_is_used(bench: Bench) -> None:
    """A budget with room for many memories holds more than ten of them."""
    user = bench.user()
    await bench.add_many([{"content": f"green tea, kind {n}", "user_id": user} for n in range(60)])
    block = await bench.client.context("green tea", user, token_budget=4000)
    ensure(len(block.citations) > 10, f"the context holds {len(block.citations)} memories of 60 that fit")


@area.case("context", hint="token_budget: at least 1")
async def a_budget_must_be_positive(bench: Bench) -> None:
    """A token budget of zero, below zero, or of another type is invalid_request."""
    for budget in (0, -1, 1.5, "500", True):
        await raises(InvalidRequestError, bench.client.context, "tea", bench.user(), token_budget=budget)


def _check_form(block: ContextBlock) -> None:
    markers = [line.rpartition("[")[2].removesuffix("]") for line in block.text.split("\n")] if block.text else []
    equal(markers, [citation.memory_id for citation in block.citations], "the markers, beside the citations")
