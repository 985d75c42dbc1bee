"""The filter language of the platform: an allow-list of keys, operators in words, and `*` for whatever is not null."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from openproto_conformance.emulators.mem0.store import ENTITIES, Memory, Version, moment
from openproto_conformance.emulators.messages import Refused

_LOGICAL = ("AND", "OR", "NOT")
_TIMES = ("created_at", "updated_at")
_OTHERS = ("categories", "keywords", "metadata", "memory_ids")
_OPERATORS = {
    **dict.fromkeys(ENTITIES, ("eq", "ne", "in")),
    **dict.fromkeys(_TIMES, ("eq", "ne", "gt", "gte", "lt", "lte")),
}
_FOR_METADATA = ("eq", "ne", "contains")


def check(filters: Any, *, search: bool) -> None:
    """Refuse what the platform refuses: unknown keys and operators, and filters that name no entity."""
    _check(filters, search=search)
    if not _names_entity(filters):
        raise Refused(400, "filters must name at least one of user_id, agent_id, app_id, run_id")


def matches(filters: Any, memory: Memory, version: Version) -> bool:
    """Say whether a memory, as this version of it is, fits."""
    return all(_fits(key, value, memory, version) for key, value in filters.items())


def _check(filters: Any, *, search: bool) -> None:
    if not isinstance(filters, dict):
        raise Refused(400, "filters must be an object")
    for key, value in filters.items():
        if key in _LOGICAL:
            for part in value if isinstance(value, list) else [value]:
                _check(part, search=search)
        elif key == "keywords" and search:
            raise Refused(500, "Internal server error")  # as users have seen
        elif key == "metadata":
            if not isinstance(value, dict):
                raise Refused(400, "metadata must be an object")
            for name, condition in value.items():
                _check_operators(name, condition, _FOR_METADATA)
        elif key in _OPERATORS:
            _check_operators(key, value, _OPERATORS[key])
        elif key not in _OTHERS:
            raise Refused(400, f"{key!r} is no field to filter by; metadata goes under 'metadata'")


def _check_operators(key: str, condition: Any, known: tuple[str, ...]) -> None:
    if isinstance(condition, dict) and (unknown := sorted(set(condition) - set(known))):
        raise Refused(400, f"{key}: no operator {unknown[0]!r} here")


def _names_entity(filters: Mapping[str, Any]) -> bool:
    # Assumed: inside AND and OR counts, inside NOT does not.
    return any(name in filters for name in ENTITIES) or any(
        _names_entity(part) for key in ("AND", "OR") for part in filters.get(key, ())
    )


def _fits(key: str, condition: Any, memory: Memory, version: Version) -> bool:
    if key == "AND":
        return all(matches(part, memory, version) for part in condition)
    if key == "OR":
        return any(matches(part, memory, version) for part in condition)
    if key == "NOT":
        parts = condition if isinstance(condition, list) else [condition]
        return not any(matches(part, memory, version) for part in parts)
    if key == "metadata":
        kept = version.metadata or {}
        return all(_holds(kept.get(name), wanted) for name, wanted in condition.items())
    if key in ENTITIES:
        return _holds(memory.entities[key], condition)
    if key in _TIMES:
        return _holds(moment(memory.versions[0].at if key == "created_at" else version.at), condition)
    if key == "keywords":
        return str(condition).casefold() in version.text.casefold()
    if key == "memory_ids":
        return memory.id in condition
    return False  # Assumed: nothing is ever put into a category.


def _holds(found: Any, condition: Any) -> bool:
    if not isinstance(condition, dict):
        return found is not None if condition == "*" else bool(found == condition)
    tests: dict[str, Callable[[Any], bool]] = {
        "eq": lambda wanted: found == wanted,
        "ne": lambda wanted: found != wanted,
        "in": lambda wanted: bool(found in wanted),
        "contains": lambda wanted: isinstance(found, str | list) and wanted in found,
        "gt": lambda wanted: found > wanted,
        "gte": lambda wanted: found >= wanted,
        "lt": lambda wanted: found < wanted,
        "lte": lambda wanted: found <= wanted,
    }
    return all(tests[operator](wanted) for operator, wanted in condition.items())
