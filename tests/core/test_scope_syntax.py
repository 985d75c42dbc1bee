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
    return build(Filters, {"user_id": "ada", "scope": scope}).scope


def stored(scope: str) -> str | None:
    return build(MemoryInput, {"content": "tea", "user_id": "ada", "scope": scope}).scope


@given(PATH)
def test_the_three_spellings_of_a_node_are_one_filter(path: str) -> None:
    assert {filter_of(path), filter_of(f"{path}/"), filter_of(f"{path}/*")} == {path}


@given(PATH)
def test_a_filter_is_the_same_after_being_read_twice(path: str) -> None:
    assert filter_of(filter_of(f"{path}/*")) == path


@given(PATH)
def test_any_path_can_be_stored_as_given(path: str) -> None:
    assert stored(path) == path


@given(st.text(st.sampled_from("a/* _%?["), max_size=8))
def test_what_can_be_filtered_by_is_star_or_a_path_that_could_be_stored(text: str) -> None:
    try:
        node = filter_of(text)
    except InvalidRequestError:
        return
    assert (node is None and text == "*") or (node is not None and stored(node) == node and "*" not in node)


@given(st.text(st.sampled_from("a/* _%?["), max_size=8))
def test_a_filter_only_ever_loses_its_ending(text: str) -> None:
    try:
        node = filter_of(text)
    except InvalidRequestError:
        return
    assert text == "*" or text in (node, f"{node}/", f"{node}/*")


def test_a_star_alone_selects_every_scope() -> None:
    assert filter_of("*") is None


def test_no_scope_selects_every_scope() -> None:
    assert filter_of(None) is None


@pytest.mark.parametrize("scope", ["a*", "*/a", "a/*/b", "a/**", "**", "a/b*", "*a", "a/*/", "a//*"])
def test_a_star_elsewhere_is_refused(scope: str) -> None:
    with pytest.raises(InvalidRequestError, match="scope"):
        filter_of(scope)


@pytest.mark.parametrize("scope", ["/", "/a", "a//b", "a//", "//", "/*", " ", "a/ /b", "", "/a/"])
def test_an_empty_segment_is_refused_in_a_filter(scope: str) -> None:
    with pytest.raises(InvalidRequestError, match="scope"):
        filter_of(scope)


@pytest.mark.parametrize("scope", ["*", "a/*", "a*", "a/", "/a", "a//b", "/", " / "])
def test_a_record_is_stored_at_a_node_only(scope: str) -> None:
    with pytest.raises(InvalidRequestError, match="scope"):
        stored(scope)


@pytest.mark.parametrize("ending", ["", "/", "/*"])
def test_the_longest_scope_can_be_filtered_by_in_every_spelling(ending: str) -> None:
    assert filter_of("s" * 512 + ending) == "s" * 512


@pytest.mark.parametrize("ending", ["", "/", "/*"])
def test_a_filter_longer_than_any_scope_is_refused(ending: str) -> None:
    with pytest.raises(InvalidRequestError, match="scope"):
        filter_of("s" * 513 + ending)


@pytest.mark.parametrize("scope", ["under_score", "100%", "what?", "[x]", "a.b", "agent/7/run/9", "día/日"])
def test_the_characters_of_patterns_are_ordinary(scope: str) -> None:
    assert filter_of(scope) == stored(scope) == scope


@pytest.mark.parametrize("scope", [1, b"a", ["a"], True])
def test_a_filter_that_is_no_text_is_refused(scope: Any) -> None:
    with pytest.raises(InvalidRequestError):
        build(SearchQuery, {"query": "q", "user_id": "ada", "scope": scope})
