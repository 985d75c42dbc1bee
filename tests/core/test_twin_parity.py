"""`Memory` and `AsyncMemory` are one interface: names, parameters, kinds, defaults, annotations, documentation."""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from openproto import AsyncMemory, Memory, MemoryChanges
from openproto.models import VERBS

REQUIRED = inspect.Parameter.empty


def public(cls: type) -> set[str]:
    return {name for name in dir(cls) if not name.startswith("_")}


# `aclose` is what asyncio's own helpers look for (contextlib.aclosing); a synchronous twin would have no use for it.
NAMES = sorted(public(AsyncMemory) - {"aclose"})
HELPERS = "add_many close delete_all from_env health iter put restore scopes search_many stats users wait_for_ingest"


def test_both_clients_have_the_same_public_names_the_verbs_and_the_helpers() -> None:
    assert AsyncMemory.close is AsyncMemory.aclose
    assert public(Memory) == set(NAMES) == {*VERBS, *HELPERS.split()}


def parameters(cls: type, name: str) -> list[tuple[str, Any, Any, Any]]:
    method = getattr(cls, name)
    hints = typing.get_type_hints(method, include_extras=True)
    return [(p.name, p.kind, p.default, hints.get(p.name)) for p in inspect.signature(method).parameters.values()]


@pytest.mark.parametrize("name", NAMES)
def test_each_method_has_the_same_parameters_result_and_documentation_and_only_one_is_awaited(name: str) -> None:
    assert parameters(AsyncMemory, name) == parameters(Memory, name)
    one, two = (typing.get_type_hints(getattr(cls, name))["return"] for cls in (AsyncMemory, Memory))
    if typing.get_origin(one) is AsyncIterator:
        assert typing.get_origin(two) is Iterator
        one, two = typing.get_args(one), typing.get_args(two)
    assert one == two
    documented = inspect.getdoc(getattr(AsyncMemory, name))
    assert documented
    assert documented == inspect.getdoc(getattr(Memory, name))
    waits = inspect.isasyncgenfunction if name == "iter" else inspect.iscoroutinefunction
    assert waits(getattr(AsyncMemory, name)) == (name not in ("from_env", "stats"))
    assert not waits(getattr(Memory, name))


def test_the_classes_have_and_document_the_same_options_and_errors() -> None:
    assert parameters(AsyncMemory, "__init__") == parameters(Memory, "__init__")
    completed = inspect.signature(Memory)  # with the options of every installed provider, for a console
    assert str(completed) == str(inspect.signature(AsyncMemory))
    assert {"timeout", "path", "search_cache_mb", "pool_max", "read_url", "options"} <= completed.parameters.keys()
    completed.bind("postgres", url="postgresql://db/app")
    texts = [inspect.getdoc(cls) or "" for cls in (AsyncMemory, Memory)]
    assert texts[0].partition("Args:")[2] == texts[1].partition("Args:")[2] != ""
    found = inspect.signature(Memory.__init__).parameters
    assert set(found) - {"self"} <= set(re.findall(r"^    (\w+): ", texts[1], re.MULTILINE))
    kinds = {p.kind for name, p in found.items() if name not in ("self", "provider", "options")}
    assert kinds == {inspect.Parameter.KEYWORD_ONLY}


def names(text: str, **defaults: Any) -> dict[str, Any]:
    return {**dict.fromkeys(text.split()), **defaults}


FILTERS = "scope tag as_of"
FACTS = "scope tags source confidence valid_from valid_to supersedes"
USER, QUERY = {"user_id": REQUIRED}, {"query": REQUIRED, "user_id": REQUIRED}
SIGNATURES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    # verb: (positional or keyword, keyword only), each name -> default, as PROTOCOL section 2 has them
    "add": ({"content": REQUIRED}, names(f"{FACTS} key on_duplicate idempotency_key", **USER)),
    "get": ({"id": None}, names("user_id key")),
    "update": ({"id": REQUIRED}, names("user_id if_version")),
    "delete": ({"id": REQUIRED}, names("user_id if_version")),
    "list": (USER, names(f"{FILTERS} since until cursor", limit=50)),
    "search": (QUERY, names(f"{FILTERS} min_score", limit=10, explain=False)),
    "context": (QUERY, names(FILTERS, token_budget=500, relevant_only=False)),
    "audit": (USER, names("app memory_id since", limit=100)),
    "capabilities": ({}, {}),
    "put": ({"content": REQUIRED}, names(f"{FACTS} if_version", **USER, key=REQUIRED)),
    "scopes": (USER, names("prefix depth")),
    "users": ({}, names("cursor", limit=100)),
    "restore": ({"records": REQUIRED}, {}),
    "add_many": ({"items": REQUIRED}, {}),
    "delete_all": (USER, names("scope tag")),
    "wait_for_ingest": ({"ids": REQUIRED, "user_id": REQUIRED}, {"timeout": None}),
    "health": ({}, {}),
    "close": ({}, {}),
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_each_signature_is_that_of_the_protocol(name: str) -> None:
    found = [p for p in inspect.signature(getattr(Memory, name)).parameters.values() if p.name != "self"]
    positional = {p.name: p.default for p in found if p.kind is p.POSITIONAL_OR_KEYWORD}
    keyword = {p.name: p.default for p in found if p.kind is p.KEYWORD_ONLY}
    assert (list(positional.items()), keyword) == (list(SIGNATURES[name][0].items()), SIGNATURES[name][1])
    assert set(MemoryChanges.__annotations__) == {*FACTS.split(), "content"} - {"valid_from"}  # the keywords of update
