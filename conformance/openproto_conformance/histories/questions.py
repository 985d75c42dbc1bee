"""Questions worth asking of what a history has stored: a filter that changes no answer is not tried by asking it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import combinations, islice, permutations, product
from typing import Any, TypeAlias

from openproto import Capabilities
from openproto_conformance.histories.values import MOMENTS
from openproto_conformance.model import Model

Filters: TypeAlias = dict[str, Any]

MOST_VALUES = 4
"""Values of each filter that are combined, so that looking for a question takes less time than asking it."""
MOST_CUT = 2
COMMON_WORD = "number"
"""What searches ask for, because most records hold it."""


def telling_filters(model: Model, user: str, declared: Capabilities, start: int) -> Iterator[Filters]:
    """Yield, for each two filters, values of which each alone changes what `list` answers to the other.

    Whoever leaves out one of the two, in whichever verb, gives another answer. `start` turns the order of the values.
    """
    values = _values(model, user, declared, start)
    for one, other in combinations(values, 2):
        asked = ({one: a, other: b} for a, b in product(values[one], values[other]))
        yield from islice((filters for filters in asked if _each_counts(model, user, filters)), 1)


def common_filters(model: Model, user: str) -> Iterator[Filters]:
    """Yield the scope that most of the user's current records of the common word share, a tag in it, and two tags.

    More records have the scope, or the first tag, alone: so it shows where the other one comes after the limit.
    """
    current = [model.records[id] for id in model.list(user, as_of=max(datetime.now(UTC), model.latest))]
    mine = [record for record in current if COMMON_WORD in record["content"].split()]
    scopes = Counter(record["scope"] for record in mine if record["scope"] is not None)
    tags = Counter(tag for record in mine for tag in {*record["tags"]})
    pairs = Counter(pair for record in mine for pair in permutations(dict.fromkeys(record["tags"][:MOST_VALUES]), 2))
    yield from ({"scope": scope} for scope, _ in scopes.most_common(1))
    within = Counter((record["scope"], tag) for record in mine if record["scope"] for tag in {*record["tags"]})
    apart = sorted(within, key=lambda pair: (scopes[pair[0]] - within[pair], within[pair]), reverse=True)
    yield from ({"scope": scope, "tag": tag} for scope, tag in apart[:1])
    both = sorted(pairs, key=lambda pair: (tags[pair[0]] - pairs[pair], pairs[pair]), reverse=True)
    yield from ({"tag": [*pair]} for pair in both[:1])


def nodes_cut_short(model: Model, user: str, declared: Capabilities) -> list[str]:
    """Return a few texts with which a scope of the user begins, or that look like a pattern of it, and are no nodes."""
    if declared.features.scopes == "none":
        return []
    scopes = {record["scope"]: None for record in model.records.values() if record["user_id"] == user}
    cut = [f"{scope[:-1]}{'_' * (n % 2)}" for n, scope in enumerate(scopes) if scope is not None]
    return [text for text in cut if text.split("/")[-1].strip()][:MOST_CUT]


def _values(model: Model, user: str, declared: Capabilities, start: int) -> Mapping[str, Sequence[Any]]:
    mine = [record for record in model.records.values() if record["user_id"] == user]
    values = {"tag": _some((tag for record in mine for tag in record["tags"]), start)}
    if declared.features.scopes != "none":
        scopes = [record["scope"] for record in mine if record["scope"] is not None]
        values["scope"] = _some([scope.split("/")[0] for scope in scopes] + scopes, start)
    if declared.features.temporal:
        values["as_of"] = _some(MOMENTS, start)
    values["since"] = _some(sorted(record["created_at"] for record in mine)[1:], start)
    return values


def _some(values: Iterable[Any], start: int) -> list[Any]:
    each = list(dict.fromkeys(values))
    turn = start % len(each) if each else 0
    return [*each[turn:], *each[:turn]][:MOST_VALUES]


def _each_counts(model: Model, user: str, filters: Filters) -> bool:
    answer = model.list(user, **filters)
    return all(
        model.list(user, **{name: value for name, value in filters.items() if name != left_out}) != answer
        for left_out in filters
    )
