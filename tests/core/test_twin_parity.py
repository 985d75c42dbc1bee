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
every_method = pytest.mark.parametrize("name", NAMES)


@pytest.mark.promise(78)
@pytest.mark.promise(1)
@pytest.mark.promise(26)
@pytest.mark.promise(35)
@pytest.mark.promise(41)
def test_both_clients_have_the_same_public_names() -> None:
    assert public(Memory) == set(NAMES)


@pytest.mark.promise(78)
def test_the_public_names_are_the_verbs_and_the_helpers() -> None:
    helpers = {
        "add_many",
        "delete_all",
        "iter",
        "put",
        "restore",
        "scopes",
        "search_many",
        "wait_for_ingest",
        "health",
        "stats",
        "users",
        "close",
        "from_env",
    }
    assert set(NAMES) == {*VERBS, *helpers}


def parameters(cls: type, name: str) -> list[tuple[str, Any, Any, Any]]:
    method = getattr(cls, name)
    hints = typing.get_type_hints(method, include_extras=True)
    return [(p.name, p.kind, p.default, hints.get(p.name)) for p in inspect.signature(method).parameters.values()]


@pytest.mark.promise(78)
@pytest.mark.promise(1)
@pytest.mark.promise(26)
@pytest.mark.promise(35)
@pytest.mark.promise(41)
@pytest.mark.parametrize("name", [*NAMES, "__init__"])
def test_each_method_has_the_same_parameters_kinds_defaults_and_annotations(name: str) -> None:
    assert parameters(AsyncMemory, name) == parameters(Memory, name)


@pytest.mark.promise(78)
@every_method
def test_each_method_returns_the_same(name: str) -> None:
    one, two = (typing.get_type_hints(getattr(cls, name))["return"] for cls in (AsyncMemory, Memory))
    if typing.get_origin(one) is AsyncIterator:
        assert typing.get_origin(two) is Iterator
        one, two = typing.get_args(one), typing.get_args(two)
    assert one == two


@pytest.mark.promise(78)
@every_method
def test_each_method_is_documented_and_in_the_same_words(name: str) -> None:
    one, two = inspect.getdoc(getattr(AsyncMemory, name)), inspect.getdoc(getattr(Memory, name))
    assert one
    assert one == two


@pytest.mark.promise(78)
def test_the_classes_document_the_same_options_and_errors() -> None:
    one, two = ((inspect.getdoc(cls) or "").partition("Args:")[2] for cls in (AsyncMemory, Memory))
    assert one == two != ""


@pytest.mark.parametrize("cls", [AsyncMemory, Memory])
def test_each_option_of_the_constructor_is_documented(cls: type) -> None:
    documented = set(re.findall(r"^    (\w+): ", inspect.getdoc(cls) or "", re.MULTILINE))
    assert set(inspect.signature(cls).parameters) <= documented


@pytest.mark.promise(5)
@pytest.mark.promise(92)
@every_method
def test_the_methods_of_async_memory_are_coroutines(name: str) -> None:
    if name == "iter":
        assert inspect.isasyncgenfunction(AsyncMemory.iter)
    elif name not in ("from_env", "stats"):  # neither waits for anything
        assert inspect.iscoroutinefunction(getattr(AsyncMemory, name))


@every_method
def test_the_methods_of_memory_are_plain(name: str) -> None:
    method = getattr(Memory, name)
    assert not inspect.iscoroutinefunction(method)
    assert not inspect.isasyncgenfunction(method)


@pytest.mark.promise(2)
@pytest.mark.promise(23)
@pytest.mark.promise(28)
def test_closing_has_both_names_on_the_async_client() -> None:
    assert AsyncMemory.close is AsyncMemory.aclose


SIGNATURES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    # verb: (positional or keyword, keyword only), each name -> default, as PROTOCOL section 2 has them
    "add": (
        {"content": REQUIRED},
        {
            "user_id": REQUIRED,
            "scope": None,
            "tags": None,
            "source": None,
            "confidence": None,
            "valid_from": None,
            "valid_to": None,
            "supersedes": None,
            "key": None,
            "idempotency_key": None,
        },
    ),
    "get": ({"id": None}, {"user_id": None, "key": None}),
    "update": ({"id": REQUIRED}, {"user_id": None, "if_version": None}),
    "delete": ({"id": REQUIRED}, {"user_id": None, "if_version": None}),
    "list": (
        {"user_id": REQUIRED},
        {"scope": None, "tag": None, "since": None, "until": None, "as_of": None, "limit": 50, "cursor": None},
    ),
    "search": (
        {"query": REQUIRED, "user_id": REQUIRED},
        {"scope": None, "tag": None, "as_of": None, "limit": 10, "min_score": None},
    ),
    "context": (
        {"query": REQUIRED, "user_id": REQUIRED},
        {"scope": None, "tag": None, "as_of": None, "token_budget": 500, "relevant_only": False},
    ),
    "audit": ({"user_id": REQUIRED}, {"app": None, "memory_id": None, "since": None, "limit": 100}),
    "capabilities": ({}, {}),
    "put": (
        {"content": REQUIRED},
        {
            "user_id": REQUIRED,
            "key": REQUIRED,
            "if_version": None,
            "scope": None,
            "tags": None,
            "source": None,
            "confidence": None,
            "valid_from": None,
            "valid_to": None,
            "supersedes": None,
        },
    ),
    "scopes": ({"user_id": REQUIRED}, {"prefix": None, "depth": None}),
    "users": ({}, {"limit": 100, "cursor": None}),
    "restore": ({"records": REQUIRED}, {}),
    "add_many": ({"items": REQUIRED}, {}),
    "delete_all": ({"user_id": REQUIRED}, {"scope": None, "tag": None}),
    "wait_for_ingest": ({"ids": REQUIRED, "user_id": REQUIRED}, {"timeout": None}),
    "health": ({}, {}),
    "close": ({}, {}),
}
both = pytest.mark.parametrize("cls", [AsyncMemory, Memory])


@pytest.mark.promise(91)
@pytest.mark.promise(32)
@both
@pytest.mark.parametrize("name", SIGNATURES)
def test_each_signature_is_that_of_the_protocol(cls: type, name: str) -> None:
    found = [p for p in inspect.signature(getattr(cls, name)).parameters.values() if p.name != "self"]
    positional = {p.name: p.default for p in found if p.kind is p.POSITIONAL_OR_KEYWORD}
    keyword = {p.name: p.default for p in found if p.kind is p.KEYWORD_ONLY}
    assert (list(positional.items()), keyword) == (list(SIGNATURES[name][0].items()), SIGNATURES[name][1])


@pytest.mark.promise(91)
@both
def test_search_takes_query_and_user_by_position(cls: Any) -> None:
    inspect.signature(cls.search).bind(None, "tea", "ada")
    with pytest.raises(TypeError):
        inspect.signature(cls.search).bind(None, "tea", "ada", "scope")


@pytest.mark.promise(91)
@both
def test_add_takes_content_by_keyword_or_position_and_the_user_by_keyword(cls: Any) -> None:
    inspect.signature(cls.add).bind(None, content="tea", user_id="ada")
    inspect.signature(cls.add).bind(None, "tea", user_id="ada")
    with pytest.raises(TypeError):
        inspect.signature(cls.add).bind(None, "tea", "ada")


@both
def test_the_keywords_of_update_are_the_changes_of_the_protocol(cls: Any) -> None:
    hint = typing.get_type_hints(cls.update)["changes"]
    assert typing.get_args(hint) == (MemoryChanges,)
    assert set(MemoryChanges.__annotations__) == {
        "content", "scope", "tags", "confidence", "valid_to", "supersedes", "source",
    }  # fmt: skip
    assert MemoryChanges.__total__ is False


@both
def test_any_provider_option_can_be_given_to_the_constructor(cls: Any) -> None:
    kinds = {p.name: p.kind for p in inspect.signature(cls).parameters.values()}
    assert kinds["options"] is inspect.Parameter.VAR_KEYWORD
    assert all(kinds[n] is inspect.Parameter.KEYWORD_ONLY for n in ("timeout", "retries", "close_timeout", "app"))
