"""The context block: the best memories as text for a prompt, never longer than its token budget."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeAlias

from openproto.models import Citation, ContextBlock, SearchResult

TokenCounter: TypeAlias = Callable[[str], int]

BYTES_PER_TOKEN = 4
"""What English text averages under the tokenizers of today's models; other scripts take fewer bytes a token."""


def estimate_tokens(text: str) -> int:
    """Estimate the tokens of `text` as a quarter of its UTF-8 bytes, rounded up; the default counter."""
    return -(-len(text.encode()) // BYTES_PER_TOKEN)


def build_context(found: Iterable[SearchResult], token_budget: int, count_tokens: TokenCounter) -> ContextBlock:
    """Return the block of as many results, best first, as fit into `token_budget` by `count_tokens`.

    Each memory stands on one line that ends with its marker `[<id>]`; a memory whose words were seen before is left
    out, one that does not fit is passed over for the next, and a first one that alone is too long is cut at a word.
    """
    lines: list[str] = []
    citations: list[Citation] = []
    seen: set[str] = set()
    spent = 0
    for result in found:
        words = " ".join(result.memory.content.split())
        if words.casefold() in seen:
            continue
        marker = f"[{result.memory.id}]"
        line = f"{words} {marker}"
        cost = count_tokens(f"\n{line}" if lines else line)
        if spent + cost > token_budget:
            shortened = None if lines else _cut(words, marker, token_budget, count_tokens)
            if shortened is None:
                continue
            line, cost = shortened, count_tokens(shortened)
        seen.add(words.casefold())
        spent += cost
        lines.append(line)
        citations.append(Citation(memory_id=result.memory.id, score=result.score))
    # Tokenizers are not additive: the lines' counts say which lines to try, only the whole text's count is the truth.
    while lines and count_tokens("\n".join(lines)) > token_budget:
        lines.pop()
        citations.pop()
    text = "\n".join(lines)
    return ContextBlock(text=text, citations=citations, token_count=count_tokens(text) if lines else 0)


def _cut(words: str, marker: str, token_budget: int, count_tokens: TokenCounter) -> str | None:
    """Return the longest run of whole words that fits with its marker, or None where not even one word does."""
    parts = words.split(" ")
    low, high = 0, len(parts) - 1
    while low < high:
        middle = (low + high + 1) // 2
        if count_tokens(f"{' '.join(parts[:middle])} {marker}") <= token_budget:
            low = middle
        else:
            high = middle - 1
    return f"{' '.join(parts[:low])} {marker}" if low else None
