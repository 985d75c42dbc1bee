"""The steps of a history, and how they are written as a program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, TypeAlias


@dataclass(frozen=True)
class Made:
    """The record that a step made, its `item`-th of a batch; `changed` asks for an id that is nearly that one."""

    step: int
    item: int = 0
    change: str = ""

    def __repr__(self) -> str:
        id = f"made_{self.step}[{self.item}].id"
        return {"": id, "case": f"{id}.upper()", "longer": f'{id} + "x"', "blank": f'{id} + " "'}[self.change]

    def changed(self, id: str) -> str:
        """Return `id`, or one that differs from it in case, or in one character at its end."""
        return {"": id, "case": id.upper() if id.upper() != id else id.lower(), "longer": f"{id}x", "blank": f"{id} "}[
            self.change
        ]


@dataclass(frozen=True)
class User:
    """One of the users of a history."""

    number: int

    def __repr__(self) -> str:
        return f"users[{self.number}]"


@dataclass(frozen=True)
class VersionOf:
    """The version of a record when it was last seen."""

    made: Made

    def __repr__(self) -> str:
        return f"versions[{self.made!r}]"


@dataclass(frozen=True)
class Copies:
    """Records as they were last seen, deleted ones among them: what `restore` writes."""

    made: tuple[Made, ...]
    more: Mapping[str, str] = field(default_factory=dict)
    """What is another in one more copy of the first, where anything is."""

    def __repr__(self) -> str:
        copies = f"last_seen[id] for id in {list(self.made)!r}"
        changed = f", last_seen[{self.made[0]!r}].model_copy(update={self.more!r})" if self.more and self.made else ""
        return f"[*({copies}){changed}]"


@dataclass(frozen=True)
class Step:
    """One call, or with `parts` several at once; `number` names what it makes, whatever is left out before it."""

    number: int
    verb: str
    arguments: dict[str, Any] = field(default_factory=dict)
    client: int = 0
    parts: tuple[Step, ...] = ()

    def without(self, argument: str) -> Step:
        """Return the step with one argument fewer."""
        return replace(self, arguments={k: v for k, v in self.arguments.items() if k != argument})


History: TypeAlias = tuple[Step, ...]


def made_of(steps: Sequence[Step], fields: dict[str, Any]) -> Made:
    """Return the record that an `add`, or an item of a batch, makes of these very arguments."""
    items = ((step, step.arguments.get("items", [step.arguments])) for step in steps)
    return next(Made(step.number, n) for step, some in items for n, item in enumerate(some) if item is fields)


_HEAD = """import asyncio
import datetime
import secrets

from openproto import AsyncMemory


def client():
    return AsyncMemory({provider!r})  # with your options


async def attempt(call):
    try:
        answer = await call
    except Exception as error:
        answer = error
    print(repr(answer))
    return answer


versions, last_seen = {{}}, {{}}


def seen(answer):
    records = answer if isinstance(answer, list) else [answer]
    for record in records:
        if hasattr(record, "created_at"):
            versions[record.id], last_seen[record.id] = getattr(record, "version", None), record
    return records


async def main():
    token = secrets.token_hex(8)
    users = [token + name for name in {names!r}]
    clients = [client() for _ in range({clients})]
"""
_MAKES = {"add", "add_many", "put"}


def program(history: Sequence[Step], suffixes: Sequence[str], provider: str) -> str:
    """Return the history as a program that the backend's author can run."""
    clients = max((step.client for step in _flat(history)), default=0) + 1
    lines = [_HEAD.format(names=list(suffixes), provider=provider, clients=clients).rstrip()]
    for step in history:
        lines += _lines(step)
    lines += ["    for each in clients:", "        await each.aclose()", "", "", "asyncio.run(main())"]
    return "\n".join(lines)


def _flat(history: Sequence[Step]) -> list[Step]:
    return [part for step in history for part in (step, *step.parts)]


def _lines(step: Step) -> list[str]:
    if step.verb == "reopen":
        return [
            f"    await clients[{step.client}].aclose()",
            f"    clients[{step.client}] = client()",
        ]
    if step.verb == "read back":
        return ["    # everything is read back: list, get, search; at the end delete_all"]
    if step.verb == "cancelled":
        call = step.parts[0]
        return [f"    # cancelled at its suspension {step.arguments['at']}:", *_lines(call)]
    if step.parts:
        calls = ", ".join(f"attempt({_call(part)})" for part in step.parts)
        return [f"    await asyncio.gather({calls})"]
    answer = f"await attempt({_call(step)})"
    if step.verb in _MAKES:
        return [f"    made_{step.number} = seen({answer})"]
    return [f"    seen({answer})" if step.verb in ("get", "update") else f"    {answer}"]


def _call(step: Step) -> str:
    plain = {name: value for name, value in step.arguments.items() if name.isidentifier()}
    others = {name: value for name, value in step.arguments.items() if not name.isidentifier()}
    arguments = [f"{name}={_shown(value)}" for name, value in plain.items()]
    if others:
        arguments.append(f"**{others!r}")
    return f"clients[{step.client}].{step.verb}({', '.join(arguments)})"


def _shown(value: Any) -> str:
    if isinstance(value, datetime):
        return repr(value)
    if isinstance(value, str) and len(value) > 400:
        for end in range(len(value) - 1, 0, -1):
            if value[end] != value[-1]:
                return f"{value[: end + 1]!r} + {value[-1]!r} * {len(value) - end - 1}"
    return repr(value)
