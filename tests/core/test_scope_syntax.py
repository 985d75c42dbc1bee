"""Scopes are paths; a filter is a node in one of three spellings, or `*`."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openproto import InvalidRequestError, MemoryInput
from openproto.requests import Filters, SearchQuery, build

# Any character but the two that mean something, and those that no string may hold.
SEGMENT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/*\0"), min_size=1, max_size=8).filter(
    lambda text: not text.isspace()
)
PATH = st.lists(SEGMENT, min_size=1, max_size=4).map("/".join)


def filter_of(scope: Any) -> str | None:
    return build(Filters, user_id="ada", scope=scope).scope


def stored(scope: str) -> str | None:
    return build(MemoryInput, content="tea", user_id="ada", scope=scope).scope


@given(PATH)
def test_a_path_is_stored_as_given_and_its_three_spellings_are_one_filter(path: str) -> None:
    assert stored(path) == path
    assert {filter_of(path), filter_of(f"{path}/"), filter_of(f"{path}/*")} == {path}


@given(st.text(st.sampled_from("a/* _%?["), max_size=8))
def test_a_filter_is_star_or_a_path_that_could_be_stored_and_only_loses_its_ending(text: str) -> None:
    try:
        node = filter_of(text)
    except InvalidRequestError:
        return
    if node is None:
        assert text == "*"
    else:
        assert text in (node, f"{node}/", f"{node}/*")
        assert stored(node) == node
        assert "*" not in node


@pytest.mark.parametrize(
    "scope",
    [
        *("a*", "*/a", "a/*/b", "a/**", "**", "a/b*", "*a", "a/*/", "a//*"),  # a star elsewhere
        *("/", "/a", "a//b", "a//", "//", "/*", " ", "a/ /b", "", "/a/"),  # an empty segment
        *("s" * 513 + ending for ending in ("", "/", "/*")),  # longer than any scope
    ],
)
def test_any_other_filter_is_refused(scope: str) -> None:
    with pytest.raises(InvalidRequestError, match="scope"):
        filter_of(scope)


@pytest.mark.parametrize("scope", ["*", "a/*", "a*", "a/", "/a", "a//b", "/", " / "])
def test_a_record_is_stored_at_a_node_only(scope: str) -> None:
    with pytest.raises(InvalidRequestError, match="scope"):
        stored(scope)


@pytest.mark.parametrize("ending", ["", "/", "/*"])
def test_the_longest_scope_can_be_filtered_by_in_every_spelling(ending: str) -> None:
    assert filter_of("s" * 512 + ending) == "s" * 512


@pytest.mark.parametrize("scope", [1, b"a", ["a"], True])
def test_a_filter_that_is_not_text_is_refused(scope: Any) -> None:
    with pytest.raises(InvalidRequestError):
        build(SearchQuery, query="q", user_id="ada", scope=scope)
