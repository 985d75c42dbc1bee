"""Every number that a public constructor takes, found in the signatures: what is no such number is refused by name."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from openproto import AsyncMemory, Memory
from openproto.embedding import OpenAIEmbedder
from openproto.integrations.agent_framework import OpenProtoContextProvider
from openproto.integrations.google_adk import OpenProtoMemoryService
from openproto.integrations.llm import CaptureQueue, facts, wrap
from openproto.integrations.strands import OpenProtoMemoryStore
from openproto.registry import provider_class, provider_names
from openproto.server import ServerSettings

NO_WHOLE_NUMBERS = [True, 2.5, float("nan"), float("inf"), -1, [1]]
NO_SECONDS = [True, float("nan"), float("inf"), -0.5, "3", [1]]
MEMORY = AsyncMemory("sqlite", path="never-opened.db", embedder="none")
CONSTRUCTORS: dict[Callable[..., Any], dict[str, Any]] = {
    AsyncMemory: {},
    Memory: {},
    CaptureQueue: {"memory": MEMORY},
    OpenAIEmbedder: {},
    OpenProtoContextProvider: {"memory": MEMORY, "user_id": "ada"},
    OpenProtoMemoryService: {"memory": MEMORY},
    OpenProtoMemoryStore: {"memory": MEMORY, "user_id": "ada", "name": "notes"},
    ServerSettings: {},
    facts: {"client": object(), "model": "x"},
    wrap: {"client": object(), "memory": MEMORY, "user_id": "ada"},
}
REQUIRED: dict[str, Any] = {"base_url": "http://127.0.0.1:1"}


def numbers() -> Iterator[Any]:
    providers: dict[Callable[..., Any], dict[str, Any]] = {provider_class(name): {} for name in provider_names()}
    for make, others in {**CONSTRUCTORS, **providers}.items():
        # The signature of a client also lists the options of every provider, for completion: those have no default.
        own = {name: one for name, one in inspect.signature(make).parameters.items() if one.default is not ...}
        for parameter in own.values():
            kind = re.search(r"\b(int|float)\b", str(parameter.annotation))
            if kind and not parameter.name.startswith("_"):
                needed = {name: REQUIRED[name] for name in REQUIRED.keys() & own.keys()}
                arguments = {**needed, **others}
                yield pytest.param(make, parameter.name, kind[0], arguments, id=f"{make.__name__}-{parameter.name}")


FOUND = list(numbers())


def test_the_signatures_are_read() -> None:
    assert len(FOUND) > 40
    assert {found.values[1] for found in FOUND} >= {"max_workers", "pool_max", "recall_timeout", "width", "port"}


@pytest.mark.parametrize(("make", "name", "kind", "others"), FOUND)
def test_what_is_no_number_is_refused(make: Callable[..., Any], name: str, kind: str, others: dict[str, Any]) -> None:
    default = inspect.signature(make).parameters[name].default
    assert default is None or isinstance(default, int | float)
    for value in NO_WHOLE_NUMBERS if kind == "int" else NO_SECONDS:
        if make is ServerSettings and isinstance(value, str):  # an environment has only texts
            continue
        with pytest.raises((TypeError, ValueError), match=name):
            make(**{**others, name: value})


def test_numbers_are_checked_before_anything_is_made() -> None:
    assert not Path("never-opened.db").exists()
