"""LangGraph's filters on values and on namespaces."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from langgraph.store.base import ListNamespacesOp, MatchCondition

_ORDER: dict[str, Callable[[float, float], bool]] = {
    "$gt": lambda value, wanted: value > wanted,
    "$gte": lambda value, wanted: value >= wanted,
    "$lt": lambda value, wanted: value < wanted,
    "$lte": lambda value, wanted: value <= wanted,
}


def matches_value(value: Mapping[str, Any], wanted: Mapping[str, Any] | None) -> bool:
    """Return whether `value` has every field of the filter; `user.name` is the field `name` of the field `user`.

    Raises ValueError for an operator that LangGraph does not have.
    """
    return all(_matches(_field(value, name), condition) for name, condition in (wanted or {}).items())


def _field(value: Any, name: str) -> Any:
    if isinstance(value, Mapping) and name not in value and "." in name:
        first, _, rest = name.partition(".")
        return _field(value.get(first), rest)
    return value.get(name) if isinstance(value, Mapping) else None


def _matches(value: Any, wanted: Any) -> bool:
    if isinstance(wanted, Mapping):
        if any(str(name).startswith("$") for name in wanted):
            return all(_holds(value, operator, operand) for operator, operand in wanted.items())
        return isinstance(value, Mapping) and all(_matches(value.get(name), part) for name, part in wanted.items())
    if isinstance(wanted, list | tuple):
        return isinstance(value, list | tuple) and len(value) == len(wanted) and all(map(_matches, value, wanted))
    return bool(value == wanted)


def _holds(value: Any, operator: str, operand: Any) -> bool:
    if operator == "$eq":
        return bool(value == operand)
    if operator == "$ne":
        return bool(value != operand)
    if operator not in _ORDER:
        raise ValueError(f"Unsupported operator: {operator}; there are $eq, $ne, $gt, $gte, $lt, and $lte")
    try:
        return _ORDER[operator](float(value), float(operand))
    except (TypeError, ValueError):
        return False  # anything but a number is neither more nor less


def select_namespaces(namespaces: Sequence[tuple[str, ...]], op: ListNamespacesOp) -> list[tuple[str, ...]]:
    """Return the namespaces that `op` asks for: matched, cut to `max_depth`, each once, sorted, and paged."""
    found = {
        namespace[: op.max_depth]
        for namespace in namespaces
        if all(_matches_path(namespace, condition) for condition in op.match_conditions or ())
    }
    return sorted(found)[op.offset : op.offset + op.limit]


def _matches_path(namespace: tuple[str, ...], condition: MatchCondition) -> bool:
    path = condition.path
    if len(namespace) < len(path):
        return False
    if condition.match_type == "prefix":
        part = namespace[: len(path)]
    elif condition.match_type == "suffix":
        part = namespace[len(namespace) - len(path) :]
    else:
        raise ValueError(f"Unsupported match type: {condition.match_type}; there are prefix and suffix")
    return all(wanted in ("*", label) for label, wanted in zip(part, path, strict=True))
