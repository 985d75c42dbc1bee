"""What a format is: its name, how it is recognised, and how one item of it becomes fields of memories."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

from openproto import InvalidRequestError, MemoryInput

IMPORTED = "x-imported"
"""The extension that keeps what the protocol has no field for."""

Item: TypeAlias = Mapping[str, Any]
Fields: TypeAlias = dict[str, Any]

_LINKED = ("id", "supersedes", "superseded_by")
_DERIVED = {"superseded_by", "embedding_model", "status"}


class Entry(NamedTuple):
    """What stands at one place of a file: the fields of a memory, or why there is none."""

    number: int
    fields: Fields | InvalidRequestError


@dataclass(frozen=True, slots=True)
class JsonFormat:
    """A format that is JSON: one object per line, a list of objects, or one document with such lists in it."""

    name: str
    described: str
    sign: str
    """What an item is recognised by, in words."""
    is_item: Callable[[Item], bool]
    read: Callable[[Item], Iterable[Fields]]
    """Return the memories of one item; may raise what reading an unexpected shape raises."""
    items_of: Callable[[Item], Sequence[Any] | None] = lambda document: None
    """Return the items of a whole document, where it is one of this format and of no other."""
    holds_conversations: bool = False


@dataclass(frozen=True, slots=True)
class Recognised:
    """What a file was taken for and why; `entries` reads it from its start, however often it is called."""

    name: str
    described: str
    why: str
    unit: Literal["line", "item"]
    """What the numbers of its entries count."""
    entries: Callable[[], Iterator[Entry]]
    holds_conversations: bool = False


def memory(app: str, item: Item, content: Any, *, taken: Iterable[str] = (), **fields: Any) -> Fields:
    """Return the fields of a memory of another program.

    What of `item` is neither in `fields` nor named in `taken`, having become one of them, is kept in `x-imported`.
    """
    kept = {name: value for name, value in item.items() if value is not None and name not in {*taken, *fields}}
    found = {"content": content, **fields, "source": {"app": app, "type": "imported"}}
    return {name: value for name, value in found.items() if value not in (None, [])} | {
        IMPORTED: kept | ({"id": fields["id"]} if fields.get("id") is not None else {})
    }


def exported(record: Item) -> Fields:
    """Return the fields of a record that was exported; what only a backend can set is kept in `x-imported`."""
    fields: Fields = {name: record.get(name) for name in _LINKED}
    original: Fields = {}
    for name, value in record.items():
        if name == IMPORTED:
            original["earlier"] = value
        elif name in _LINKED or not (name in MemoryInput.model_fields or name.startswith("x-")):
            original |= {} if name in _DERIVED else {name: value}
        else:
            fields[name] = value
    return {**fields, IMPORTED: original}


def segment(name: Any) -> str:
    """Return a name of another program as one segment of a scope."""
    return "".join(f"%{ord(letter):02X}" if letter in "%/*" else letter for letter in str(name)).strip() or "%"


def agent_scope(agent: Any, run: Any = None) -> str | None:
    """Return the scope of an agent, and of a run of it, as the protocol spells them."""
    parts = [("agent", agent), ("run", run)]
    return "/".join(f"{kind}/{segment(name)}" for kind, name in parts if name) or None


def texts(*values: Any) -> list[str]:
    """Return the labels in `values`, each of which is a text, a list of such, or nothing."""
    found = [text for value in values for text in (value if isinstance(value, list) else [value])]
    return list(dict.fromkeys(text.strip() for text in found if isinstance(text, str) and text.strip()))
