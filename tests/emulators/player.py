"""Plays requests to an emulator in order and compares its answers with those that the vendor was seen to give."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, TypeAlias

import httpx
from openproto_conformance.emulators import Emulator
from openproto_conformance.emulators.routes import find

HEADERS: Mapping[str, Mapping[str, str]] = {
    "mem0": {"authorization": "Token emulated-api-key"},
    "memorysync": {"x-api-key": "emulated-api-key", "x-end-user-id": "ann"},
}
BEARER = {"authorization": "Bearer emulated-api-key"}


class Ask(NamedTuple):
    """A request, and what its answer holds at least; `$name` is a value that an answer before had in that place."""

    route: str
    body: Any = None
    answer: Any = ...
    status: int = 200
    headers: Mapping[str, str] = {}


Step: TypeAlias = "Ask | Mapping[str, Any] | float"
"""A request, attributes that the emulator gets, or seconds that pass."""


class Player:
    def __init__(self, emulator: Emulator) -> None:
        self.succeeded: set[str] = set()
        self._emulator = emulator
        self._seconds = 1_700_000_000.0
        self._known: dict[str, Any] = {}
        emulator.now = lambda: self._seconds  # type: ignore[method-assign]

    def play(self, steps: Iterable[Step]) -> None:
        for step in steps:
            if isinstance(step, Ask):
                self.ask(step)
            elif isinstance(step, float | int):
                self._seconds += step
            else:
                for name, value in step.items():
                    setattr(self._emulator, name, value)

    def ask(self, step: Ask) -> None:
        method, path = self._filled(step.route).split(" ", 1)
        headers = {**HEADERS.get(self._emulator.name, BEARER), **step.headers, "connection": "close"}
        body, url = self._filled(step.body), self._emulator.url + path
        got = httpx.request(method, url, json=body, headers=headers, trust_env=False, verify=False)
        assert got.status_code == step.status, f"{step.route}: {got.status_code} {got.text}"
        found = got.json() if got.content else None
        assert self._fits(step.answer, found), f"{step.route}: {found} does not hold {step.answer}"
        route, _, _ = find(self._emulator._routes, method, path.partition("?")[0])
        if got.is_success:
            self.succeeded.add(str(route))

    def _filled(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {name: self._filled(one) for name, one in value.items()}
        if isinstance(value, list):
            return [self._filled(one) for one in value]
        if not isinstance(value, str):
            return value
        if value in self._known:
            return self._known[value]
        return re.sub(r"\$[a-z]+", lambda name: str(self._known[name[0]]), value)

    def _fits(self, wanted: Any, found: Any) -> bool:
        if wanted is ...:
            return True
        if isinstance(wanted, dict):
            return isinstance(found, dict) and all(self._fits(one, found.get(name)) for name, one in wanted.items())
        if isinstance(wanted, list):
            same = isinstance(found, list) and len(found) == len(wanted)
            return same and all(self._fits(*pair) for pair in zip(wanted, found, strict=True))
        if isinstance(wanted, set):
            return sorted(found) == sorted(wanted)
        if isinstance(wanted, str) and wanted.startswith("$"):
            return bool(self._known.setdefault(wanted, found) == found)
        return bool(found == wanted)
