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


@pytest.mark.promise(1, 26, 35, 41, 78)
def test_both_clients_have_the_same_public_names_the_verbs_and_the_helpers() -> None:
    helpers = (
        "add_many close delete_all from_env health iter put restore scopes search_many stats users wait_for_ingest"
    )
    assert public(Memory) == set(NAMES) == {*VERBS, *helpers.split()}


def parameters(cls: type, name: str) -> list[tuple[str, Any, Any, Any]]:
    method = getattr(cls, name)
    hints = typing.get_type_hints(method, include_extras=True)
    return [(p.name, p.kind, p.default, hints.get(p.name)) for p in inspect.signature(method).parameters.values()]


@pytest.mark.promise(1, 5, 26, 35, 41, 78, 92)
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
    if name == "iter":
        assert inspect.isasyncgenfunction(AsyncMemory.iter)
    elif name not in ("from_env", "stats"):  # neither waits for anything
        assert inspect.iscoroutinefunction(getattr(AsyncMemory, name))
    method = getattr(Memory, name)
    assert not inspect.iscoroutinefunction(method)
    assert not inspect.isasyncgenfunction(method)


@pytest.mark.promise(78)
def test_the_classes_have_and_document_the_same_options_and_errors() -> None:
    assert parameters(AsyncMemory, "__init__") == parameters(Memory, "__init__")
    texts = [inspect.getdoc(cls) or "" for cls in (AsyncMemory, Memory)]
    assert texts[0].partition("Args:")[2] == texts[1].partition("Args:")[2] != ""
    found = inspect.signature(Memory.__init__).parameters
    assert set(found) - {"self"} <= set(re.findall(r"^    (\w+): ", texts[1], re.MULTILINE))
    assert found["options"].kind is inspect.Parameter.VAR_KEYWORD
    keyword_only = inspect.Parameter.KEYWORD_ONLY
    assert all(found[name].kind is keyword_only for name in ("timeout", "retries", "close_timeout", "app"))


def test_a_console_completes_the_options_of_every_installed_provider() -> None:
    found = inspect.signature(Memory)
    assert str(found) == str(inspect.signature(AsyncMemory))
    assert {"timeout", "path", "search_cache_mb", "pool_max", "read_url", "options"} <= found.parameters.keys()
    found.bind("postgres", url="postgresql://db/app")


@pytest.mark.promise(2, 23, 28)
def test_closing_has_both_names_on_the_async_client() -> None:
    assert AsyncMemory.close is AsyncMemory.aclose


def optional(*names: str) -> dict[str, Any]:
    return dict.fromkeys(names)


def required(*names: str) -> dict[str, Any]:
    return dict.fromkeys(names, REQUIRED)


FILTERS = optional("scope", "tag", "as_of")
FACTS = optional("scope", "tags", "source", "confidence", "valid_from", "valid_to", "supersedes")
SIGNATURES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    # verb: (positional or keyword, keyword only), each name -> default, as PROTOCOL section 2 has them
    "add": (
        required("content"),
        {**required("user_id"), **FACTS, **optional("key", "on_duplicate", "idempotency_key")},
    ),
    "get": ({"id": None}, optional("user_id", "key")),
    "update": (required("id"), optional("user_id", "if_version")),
    "delete": (required("id"), optional("user_id", "if_version")),
    "list": (required("user_id"), {**FILTERS, **optional("since", "until", "cursor"), "limit": 50}),
    "search": (required("query", "user_id"), {**FILTERS, "limit": 10, "min_score": None, "explain": False}),
    "context": (required("query", "user_id"), {**FILTERS, "token_budget": 500, "relevant_only": False}),
    "audit": (required("user_id"), {**optional("app", "memory_id", "since"), "limit": 100}),
    "capabilities": ({}, {}),
    "put": (required("content"), {**required("user_id", "key"), "if_version": None, **FACTS}),
    "scopes": (required("user_id"), optional("prefix", "depth")),
    "users": ({}, {"limit": 100, "cursor": None}),
    "restore": (required("records"), {}),
    "add_many": (required("items"), {}),
    "delete_all": (required("user_id"), optional("scope", "tag")),
    "wait_for_ingest": (required("ids", "user_id"), {"timeout": None}),
    "health": ({}, {}),
    "close": ({}, {}),
}


@pytest.mark.promise(32, 91)
@pytest.mark.parametrize("name", SIGNATURES)
def test_each_signature_is_that_of_the_protocol(name: str) -> None:
    found = [p for p in inspect.signature(getattr(Memory, name)).parameters.values() if p.name != "self"]
    positional = {p.name: p.default for p in found if p.kind is p.POSITIONAL_OR_KEYWORD}
    keyword = {p.name: p.default for p in found if p.kind is p.KEYWORD_ONLY}
    assert (list(positional.items()), keyword) == (list(SIGNATURES[name][0].items()), SIGNATURES[name][1])


def test_the_keywords_of_update_are_the_changes_of_the_protocol() -> None:
    assert typing.get_args(typing.get_type_hints(Memory.update)["changes"]) == (MemoryChanges,)
    assert set(MemoryChanges.__annotations__) == {
        "content", "scope", "tags", "confidence", "valid_to", "supersedes", "source",
    }  # fmt: skip
    assert MemoryChanges.__total__ is False
