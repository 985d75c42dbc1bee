"""What the tests of the inspector do over and over: store, choose a user, open a memory, read the table."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeAlias

import httpx
from chromium import Page

Show: TypeAlias = Callable[..., httpx.Client]


def add(client: httpx.Client, content: str, *, user_id: str = "ada", x: Any = None, **fields: Any) -> dict[str, Any]:
    answer = client.post("/memories", json={"content": content, "user_id": user_id, **fields, **(x or {})})
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def contents(client: httpx.Client, user: str) -> list[str]:
    return [item["content"] for item in client.get("/memories", params={"user_id": user, "limit": 500}).json()["items"]]


def enter(page: Page, client: httpx.Client, user: str = "ada") -> None:
    page.open(f"{client.base_url}/ui").wait_for(".users button")
    choose(page, user)


def choose(page: Page, user: str) -> None:
    click(page, ".users button", f"each.textContent === {json.dumps(user)}")
    page.wait(f"document.querySelector('.users [aria-current]')?.textContent === {json.dumps(user)}")
    page.wait("!document.querySelector('[aria-busy]')")


def open_memory(page: Page, content: str) -> None:
    click(page, ".line", f"each.textContent.includes({json.dumps(content)})")
    page.wait(f"document.querySelector('#life .content')?.textContent.includes({json.dumps(content)})")


def lines(page: Page) -> list[str]:
    """The memories in the table, from above."""
    found: list[str] = page.run(
        """[...document.querySelectorAll('.line')].sort((a, b) => a.dataset.index - b.dataset.index)
        .map(each => each.querySelector('.memory').textContent)"""
    )
    return found


def asked_context(page: Page, question: str) -> None:
    page.type(question, into="#question")
    page.press("Enter", 2).wait_for(".prompt")


def expected(page: Page, fault: str) -> None:
    """Take out of the faults of the page those that the test brought about."""
    assert [each for each in page.faults if fault not in each] == []
    page.faults.clear()


def click(page: Page, selector: str, which: str) -> None:
    page.run(f"[...document.querySelectorAll({json.dumps(selector)})].find(each => {which}).click()")
