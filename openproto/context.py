"""The context block: the best memories as text for a prompt, never longer than its token budget."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import TypeAlias

from openproto.models import MOST_BESIDE, Citation, ContextBlock, MemoryPage, MemoryRecord, SearchResult, place_of
from openproto.requests import MAX_SEARCH_LIMIT, ContextQuery, ListQuery, SearchQuery

TokenCounter: TypeAlias = Callable[[str], int]

BYTES_PER_TOKEN = 4
"""What English text averages under the tokenizers of today's models; other scripts take fewer bytes a token."""

# Scripts without spaces between words: Thai, Lao, Burmese, Khmer, kana, Han, their punctuation, and full-width forms.
# A break stands before a letter, never before a mark that belongs to the letter before it, or after a vowel that is
# written before its consonant.
_HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff01-\uff60\U00020000-\U0003fffd"
_BEFORE = rf"\u0e01-\u0e3a\u0e45-\u0e4e\u0e81-\u0ebd\u0ec6-\u0ece\u1000-\u109f\u1780-\u17d3\u3001-\u30ff{_HAN}"
_AFTER = (
    rf"\u0e01-\u0e2e\u0e40-\u0e44\u0e81-\u0eae\u0ec0-\u0ec4\u1000-\u102a\u1780-\u17b3\u3041-\u3096\u30a1-\u30fa{_HAN}"
)
_BREAK = re.compile(f" |(?<=[{_BEFORE}])(?=[{_AFTER}])")


def estimate_tokens(text: str) -> int:
    """Estimate the tokens of `text` as a quarter of its UTF-8 bytes, rounded up; the default counter."""
    return -(-len(text.encode()) // BYTES_PER_TOKEN)


async def fill_context(
    query: ContextQuery,
    count_tokens: TokenCounter,
    search: Callable[[SearchQuery], Awaitable[Sequence[SearchResult]]],
    list_page: Callable[[ListQuery], Awaitable[MemoryPage]] | None,
    *,
    temporal: bool = True,
) -> ContextBlock:
    """Return the block of what `search` finds, best first, and then, while the budget lasts, the newest records.

    A turn of a conversation brings the one that it answers, and stands beside it.
    The newest are current ones under the same filters, with score 0; none with `relevant_only`, or where the backend
    has no listing.
    """
    # A line of a context is rarely shorter than ten tokens, so this many candidates fill the budget.
    limit = max(10, min(MAX_SEARCH_LIMIT, query.token_budget // 10))
    block = _Block(query.token_budget, count_tokens)
    found = await search(query.as_search(limit))
    block.add(_with_what_they_answer(found))
    if query.relevant_only or list_page is None:
        return block.finished()
    known = {result.memory.id for result in found}
    now = datetime.now(UTC)
    listing = query.as_listing(limit, now if temporal else None)
    # A page of which nothing fits ends it: what is older is seldom so much shorter.
    while block.has_room:
        page = await list_page(listing)
        lines = len(block)
        # A backend that is asked for no moment lists what has ended, too.
        current = page.items if temporal else [record for record in page.items if _is_valid(record, now)]
        block.add(SearchResult(memory=record, score=0.0) for record in current if record.id not in known)
        if page.next_cursor is None or (len(block) == lines and not known.issuperset(r.id for r in page.items)):
            break
        listing = listing.model_copy(update={"cursor": page.next_cursor})
    return block.finished()


def _with_what_they_answer(found: Sequence[SearchResult]) -> Iterator[SearchResult]:
    """Yield the results, behind each turn the one before it where that was found too."""
    places = {result.memory.id: place_of(result.memory.extensions) for result in found}
    at: dict[tuple[str, int], SearchResult] = {
        place: result for result in reversed(found) if (place := places[result.memory.id]) is not None
    }
    told: set[str] = set()
    for result in found:
        place = places[result.memory.id]
        near, far = place.beside(-1) if place is not None else (None, None)
        before = at.get(near, at.get(far)) if near is not None and far is not None else None
        for each in (result, before):
            if each is not None and each.memory.id not in told:
                told.add(each.memory.id)
                yield each


def _in_order_of_talk(chosen: Sequence[tuple[str, SearchResult]]) -> list[tuple[str, SearchResult]]:
    """Return the lines, those of neighbouring turns together and in their order, where the first of them stood."""
    turns: dict[str, list[tuple[int, int]]] = {}
    for number, (_, result) in enumerate(chosen):
        if (place := place_of(result.memory.extensions)) is not None:
            turns.setdefault(place.conversation, []).append((place.turn, number))
    order: dict[int, tuple[int, int]] = {}
    for conversation in turns.values():
        run: list[tuple[int, int]] = []
        for turn, number in sorted(conversation):
            if run and turn - run[-1][0] > MOST_BESIDE:
                run = []
            run.append((turn, number))
            first = min(n for _, n in run)
            order |= {n: (first, t) for t, n in run}
    return [chosen[n] for n in sorted(range(len(chosen)), key=lambda n: order.get(n, (n, 0)))]


def _is_valid(record: MemoryRecord, now: datetime) -> bool:
    return (record.valid_from is None or record.valid_from <= now) and (
        record.valid_to is None or now < record.valid_to
    )


class _Block:
    """A context block on its way, never longer than its budget.

    Each memory stands on one line that ends with its marker `[<id>]`; a memory whose words were seen before is left
    out, one that does not fit is passed over for the next, and a first one that alone is too long is cut.
    """

    def __init__(self, token_budget: int, count_tokens: TokenCounter) -> None:
        self._budget = token_budget
        self._count = count_tokens
        self._chosen: list[tuple[str, SearchResult]] = []
        self._seen: set[str] = set()
        self._spent = 0
        self._marker = "[]"

    def __len__(self) -> int:
        return len(self._chosen)

    @property
    def has_room(self) -> bool:
        """Whether a line of one letter would still fit."""
        line = f"x {self._marker}"
        return self._spent + self._count(f"\n{line}" if self._chosen else line) <= self._budget

    def add(self, found: Iterable[SearchResult]) -> None:
        """Take as many of the results, best first, as fit."""
        for result in found:
            words = " ".join(result.memory.content.split())
            if words.casefold() in self._seen:
                continue
            marker = self._marker = f"[{result.memory.id}]"
            line = f"{words} {marker}"
            cost = self._count(f"\n{line}" if self._chosen else line)
            if self._spent + cost > self._budget:
                shortened = None if self._chosen else self._cut(words, marker)
                if shortened is None:
                    continue
                line, cost = shortened, self._count(shortened)
            self._seen.add(words.casefold())
            self._spent += cost
            self._chosen.append((line, result))

    def finished(self) -> ContextBlock:
        """Return the block."""
        # Tokenizers are not additive: the lines' counts say which lines to try, only the whole text's count is true.
        while self._chosen and self._count(self._text) > self._budget:
            self._chosen.pop()
        text = self._text
        citations = [Citation(memory_id=result.memory.id, score=result.score) for _, result in self._arranged]
        return ContextBlock(text=text, citations=citations, token_count=self._count(text) if text else 0)

    @property
    def _arranged(self) -> list[tuple[str, SearchResult]]:
        return _in_order_of_talk(self._chosen)

    @property
    def _text(self) -> str:
        return "\n".join(line for line, _ in self._arranged)

    def _cut(self, words: str, marker: str) -> str | None:
        """Return the longest beginning that fits with its marker, or None where nothing does.

        It ends at a word's end, or between two characters of a script that sets no spaces.
        """
        ends = [*(match.start() for match in _BREAK.finditer(words)), len(words)]
        low, high = -1, len(ends) - 1
        while low < high:
            middle = (low + high + 1) // 2
            if self._count(f"{words[: ends[middle]]} {marker}") <= self._budget:
                low = middle
            else:
                high = middle - 1
        return f"{words[: ends[low]]} {marker}" if low >= 0 else None
