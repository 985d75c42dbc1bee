"""What `search` and `context` may answer: how well a memory fits a question is the backend's, the rest is not."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from itertools import pairwise
from typing import Any, TypeAlias

from openproto.models import ContextBlock, MemoryRecord, SearchResult
from openproto_conformance.model.store import Model

Faults: TypeAlias = list[str]


def eligible(model: Model, user_id: str, now: datetime, as_of: datetime | None = None, **filters: Any) -> list[str]:
    """Return the ids that an answer may hold: the user's, under the filters, current now or at `as_of`.

    The store's clock may be ahead of the caller's: its now is not before anything that it has written.
    """
    return model.list(user_id, as_of=as_of or max(now, model.latest), **filters)


def search_faults(
    hits: Sequence[SearchResult],
    allowed: Sequence[str],
    limit: int,
    min_score: float | None = None,
    *,
    explained: bool = False,
) -> Faults:
    """Return what is wrong with the results of a search, in words; `explained` says whether each must have parts."""
    ids, scores = [hit.memory.id for hit in hits], [hit.score for hit in hits]
    faults = [f"a result that may not be there: {id}" for id in ids if id not in allowed]
    if len(ids) > limit:
        faults.append(f"{len(ids)} results for a limit of {limit}")
    if len(set(ids)) < len(ids):
        faults.append("one memory stands there twice")
    if not all(type(score) is float and 0 <= score <= 1 for score in scores):
        faults.append(f"a score that is not a float from 0 to 1: {scores}")
    if any(later > earlier for earlier, later in pairwise(scores)):
        faults.append(f"scores that rise: {scores}")
    if min_score is not None and any(score < min_score for score in scores):
        faults.append(f"a score below min_score={min_score}: {min(scores)}")
    return faults + [fault for hit in hits for fault in part_faults(hit, explained=explained)]


def part_faults(hit: SearchResult, *, explained: bool) -> Faults:
    """Return the faults of the parts of a score, which add up to it where they are due; elsewhere there are none."""
    if not explained:
        return [] if hit.parts is None else ["parts of a score that nobody asked for, or that are not declared"]
    if not hit.parts:
        return ["a score without its parts"]
    total = math.fsum(hit.parts.values())
    return [] if math.isclose(total, hit.score, abs_tol=1e-6) else [f"parts of {total} for a score of {hit.score}"]


def context_faults(
    block: ContextBlock,
    allowed: Sequence[MemoryRecord],
    due: Sequence[MemoryRecord],
    token_budget: int,
    count: Callable[[str], int],
) -> Faults:
    """Return what is wrong with a context block, which must hold those that are `due` where all of them fit."""
    by_id = {record.id: record for record in allowed}
    ids, lines = [citation.memory_id for citation in block.citations], block.text.split("\n") if block.text else []
    faults = [f"a memory that may not be there: {id}" for id in ids if id not in by_id]
    if block.token_count != (count(block.text) if block.text else 0):
        faults.append(f"token_count is {block.token_count}, and the text has {count(block.text)}")
    if block.text and count(block.text) > token_budget:
        faults.append(f"{count(block.text)} tokens for a budget of {token_budget}")
    if len(set(ids)) < len(ids):
        faults.append("one memory is cited twice")
    told = [one_line(by_id[id].content) for id in {*ids} if id in by_id]
    if len(set(told)) < len(told):
        faults.append("one text stands there twice")
    if any(later.score > earlier.score for earlier, later in pairwise(block.citations)):
        faults.append("scores that rise")
    if len(lines) != len(ids) or not all(line.endswith(f"[{id}]") for line, id in zip(lines, ids, strict=False)):
        faults.append("the markers at the ends of the lines are not the citations, in order")
    for line, id in zip(lines, ids, strict=False):
        words = line.removesuffix(f"[{id}]").strip()
        if id in by_id and not one_line(by_id[id].content).startswith(words):
            faults.append(f"a line that is not the memory it cites: {line!r}")
    return faults or _left_out(lines, due, token_budget, count)


def filling_faults(
    block: ContextBlock, found: Collection[str], allowed: Sequence[MemoryRecord], *, relevant_only: bool
) -> Faults:
    """Return what is wrong with the memories of a block that no search found: the newest first, each of score 0."""
    made = {record.id: (record.created_at, record.id) for record in allowed}
    filling = [citation for citation in block.citations if citation.memory_id not in found]
    moments = [made[citation.memory_id] for citation in filling if citation.memory_id in made]
    faults = [f"a memory that no search finds: {citation.memory_id}" for citation in filling if relevant_only]
    if any(citation.score for citation in filling):
        faults.append("a score of a memory that no search finds")
    if moments != sorted(moments, reverse=True):
        faults.append("what fills the budget is not in order, newest first")
    return faults


def one_line(content: str) -> str:
    """Return a memory as it stands in a context: all blanks, line ends among them, are single spaces."""
    return " ".join(content.split())


def _left_out(
    lines: Sequence[str], due: Sequence[MemoryRecord], token_budget: int, count: Callable[[str], int]
) -> Faults:
    """Return the fault of leaving memories out although all of them would have fitted twice over."""
    told = {one_line(record.content).casefold(): record for record in due}
    everything = "\n".join(f"{text} [{record.id}]" for text, record in told.items())
    if len(lines) < len(told) and 2 * count(everything) <= token_budget:
        return [f"{len(lines)} of {len(told)} memories, all of which fit into the budget"]
    return []
