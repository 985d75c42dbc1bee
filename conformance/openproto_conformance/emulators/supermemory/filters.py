"""The filter language: predicates on metadata, joined by `and` and `or`, at most five levels deep."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from openproto_conformance.emulators.messages import Refused

MAX_LEVELS = 5

Metadata = Mapping[str, Any]


def check_levels(expression: Any, level: int = 1) -> None:
    """Refuse an expression that is nested too deep, which the document says in words and not in its schema."""
    if level > MAX_LEVELS:
        raise Refused(400, f"filter is nested more than {MAX_LEVELS} levels deep")
    for operand in expression.get("operands", ()):
        check_levels(operand, level + 1)


def matches(expression: Any, metadata: Metadata) -> bool:
    """Say whether metadata fits an expression; every metadata fits none at all."""
    if expression is None:
        return True
    if "operands" in expression:
        join = all if expression["operator"] == "and" else any
        return join(matches(operand, metadata) for operand in expression["operands"])
    operator: str = expression["operator"]
    if operator in _NEGATIONS:
        # Assumed: what has no such field at all is not equal, and does not contain.
        return not matches({**expression, "operator": _NEGATIONS[operator]}, metadata)
    if expression["field"] not in metadata:
        return False
    found, wanted = metadata[expression["field"]], expression["value"]
    if not expression.get("caseSensitive", True) and isinstance(found, str):
        found, wanted = found.casefold(), wanted.casefold()
    return _PREDICATES[operator](found, wanted)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_NEGATIONS = {"neq": "eq", "notContains": "contains", "arrayNotContains": "arrayContains"}

_PREDICATES: dict[str, Callable[[Any, Any], bool]] = {
    # JSON's true is not 1, Python's is.
    "eq": lambda found, wanted: isinstance(found, bool) == isinstance(wanted, bool) and found == wanted,
    "gt": lambda found, wanted: _is_number(found) and found > wanted,
    "gte": lambda found, wanted: _is_number(found) and found >= wanted,
    "lt": lambda found, wanted: _is_number(found) and found < wanted,
    "lte": lambda found, wanted: _is_number(found) and found <= wanted,
    "contains": lambda found, wanted: isinstance(found, str) and wanted in found,
    "arrayContains": lambda found, wanted: isinstance(found, list) and wanted in found,
}
