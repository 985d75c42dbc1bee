"""What the tests of the inspector do over and over: store, choose a user, open a memory, read the table."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeAlias

import httpx
from chromium import Page

Show: TypeAlias = Callable[..., httpx.Client]


def add(client: httpx.Client, content: str, *, user_id: str = "ada", x: Any = None, **fields: Any) -> dict[str, Any]:
    body = {"content": content, "user_id": user_id, **fields, **(x or {})}
    answer = client.post("/memories", json=body)
    assert answer.status_code == 201, answer.text
    record: dict[str, Any] = answer.json()
    return record


def enter(page: Page, client: httpx.Client, user: str = "ada") -> None:
    """Open the inspector and choose a user."""
    page.open(f"{client.base_url}/ui")
    page.wait("document.querySelectorAll('.users button').length")
    choose(page, user)


def choose(page: Page, user: str) -> None:
    _click(page, ".users button", f"each.textContent === {json.dumps(user)}")
    page.wait(f"document.querySelector('.users [aria-current]')?.textContent === {json.dumps(user)}")
    page.wait("!document.querySelector('[aria-busy]')")


def open_memory(page: Page, content: str) -> None:
    _click(page, ".line", f"each.textContent.includes({json.dumps(content)})")
    page.wait(f"document.querySelector('#life .content')?.textContent.includes({json.dumps(content)})")


def lines(page: Page) -> list[str]:
    """The memories in the table, from above."""
    found: list[str] = page.run(
        """[...document.querySelectorAll('.line')].sort((a, b) => a.dataset.index - b.dataset.index)
        .map(each => each.querySelector('.memory').textContent)"""
    )
    return found


def _click(page: Page, selector: str, which: str) -> None:
    page.run(f"[...document.querySelectorAll({json.dumps(selector)})].find(each => {which}).click()")
