"""Scopes are paths; a filter is a node in one of three spellings, or `*`."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openproto import InvalidRequestError, MemoryInput
from openproto.requests import Filters, build

# Any character but the two that mean something, and those that no string may hold.
SEGMENT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/*\0"), min_size=1, max_size=8).filter(
    lambda text: not text.isspace()
)
PATH = st.lists(SEGMENT, min_size=1, max_size=4).map("/".join) | st.just("s" * 512)


def filter_of(scope: Any) -> str | None:
    return build(Filters, user_id="ada", scope=scope).scope


def stored(scope: str) -> str | None:
    return build(MemoryInput, content="tea", user_id="ada", scope=scope).scope


@given(PATH)
def test_a_path_is_stored_as_given_and_its_three_spellings_are_one_filter(path: str) -> None:
    assert stored(path) == path
    assert {filter_of(path), filter_of(f"{path}/"), filter_of(f"{path}/*")} == {path}
    assert filter_of("*") is None


@pytest.mark.parametrize(
    "scope",
    [
        *("a*", "*/a", "a/*/b", "a/**", "**", "a/b*", "*a", "a/*/", "a//*"),  # a star elsewhere
        *("/", "/a", "a//b", "a//", "//", "/*", " ", "a/ /b", "", "/a/"),  # an empty segment
        *("s" * 513 + ending for ending in ("", "/", "/*")),  # longer than any scope
        *(1, b"a", ["a"], True),
    ],
)
def test_any_other_filter_is_refused(scope: Any) -> None:
    with pytest.raises(InvalidRequestError, match="scope"):
        filter_of(scope)


@pytest.mark.parametrize("scope", ["*", "a/*", "a*", "a/", "/a", "a//b", "/", " / "])
def test_a_record_is_stored_at_a_node_only(scope: str) -> None:
    with pytest.raises(InvalidRequestError, match="scope"):
        stored(scope)
