"""How the pages look and sound: phones, keyboards, readers of screens, and what is loaded for it."""

from __future__ import annotations

import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from chromium import Page
from inspecting import asked_context, enter, lines, open_memory

pytestmark = pytest.mark.ui

PICTURES = Path(__file__).parents[2] / ".ui"
VIEWS = ("memories", "context", "duplicates", "activity", "figures")


@pytest.fixture(scope="session")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("axe")
    command = ["npm", "pack", "axe-core@4", "--silent"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"axe-core comes from npm, which answered: {done.stderr[-500:]}"
    with tarfile.open(folder / done.stdout.strip()) as package:
        member: Any = package.extractfile("package/axe.min.js")
        return str(member.read().decode())


def bad(page: Page, axe: str) -> list[Any]:
    page.run(f"void(window.axe ?? (() => {{ {axe} }})())")
    found: list[Any] = page.run(
        """axe.run({resultTypes: ['violations']}).then(found => found.violations
        .filter(each => ['serious', 'critical'].includes(each.impact))
        .map(each => [each.id, each.nodes.map(node => [node.html.slice(0, 200), node.failureSummary])]))"""
    )
    return found


def go_round(page: Page, server: httpx.Client, check: Callable[[str], None]) -> None:
    """Show every view, each dialog, and the documents, and check each."""
    page.open(f"{server.base_url}/ui").wait_for(".users button")
    check("start")
    enter(page, server)
    for view in VIEWS:
        page.run(f"location.hash = '{view}'")
        page.wait_for(f"#to-{view}[aria-current]")
        if view == "context":
            asked_context(page, "coffee")
        if view == "memories":
            page.click("[aria-controls=filters]")
        page.pause(200)
        check(view)
    page.run("location.hash = 'memories'")
    page.wait_for(".line")
    page.type("coffee", into="#search").wait_for(".scored .line [data-part]")
    open_memory(page, "black")
    check("search")
    page.press("Escape")  # a phone shows a memory in the place of the others
    page.type("lives", into="#search").wait_for(".scored .line", 1)
    page.run("document.activeElement.blur()")
    open_memory(page, "Lisbon")
    page.wait_for(".lines .current")
    check("life")
    for key, dialog in (("e", "#edit-dialog"), ("?", "#keys")):
        page.press(key).wait_for(dialog)
        check(dialog.removeprefix("#"))
        page.press("Escape").wait_for(dialog, 0)
    page.press("d").wait_for(".toast")
    check("undo")
    page.open(f"{server.base_url}/docs").wait("document.querySelectorAll('article').length > 30")
    check("docs")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_axe_finds_nothing_serious(page: Page, server: httpx.Client, axe: str, dark: bool) -> None:
    def check(what: str) -> None:
        page.picture(PICTURES / f"{'dark' if dark else 'light'}-{what}.png")
        assert bad(page, axe) == [], what

    page.look(dark=dark)
    go_round(page, server, check)


def test_a_phone_shows_all_of_it_without_scrolling_sideways(page: Page, server: httpx.Client) -> None:
    def check(what: str) -> None:
        page.picture(PICTURES / f"phone-{what}.png")
        assert page.run("document.documentElement.scrollWidth") == 360, what
        wide = "[...document.querySelectorAll('main, #life, #side, dialog')].filter(each => each.checkVisibility())"
        assert page.run(f"{wide}.every(each => each.scrollWidth <= each.clientWidth)"), what

    page.look(width=360, height=740, phone=True)
    go_round(page, server, check)
    enter(page, server)
    page.click("#open-side")
    check("side")


def test_a_keyboard_is_enough(page: Page, server: httpx.Client) -> None:
    def tab_to(wanted: Callable[[dict[str, Any]], bool]) -> None:
        for _ in range(40):
            page.press("Tab")
            here = page.run(
                """(each => ({text: each.textContent, id: each.id, seen: getComputedStyle(each).outlineStyle !== 'none'
                && each.getBoundingClientRect().width > 0 && each.getBoundingClientRect().left >= 0}))
                (document.activeElement)"""
            )
            assert here["seen"], here
            if wanted(here):
                return
        raise AssertionError("the focus never got there")

    page.open(f"{server.base_url}/ui").wait_for(".users button")
    tab_to(lambda here: here["text"] == "ada")
    page.press("Enter").wait_for(".line", 5)
    tab_to(lambda here: "food" in here["text"])
    tab_to(lambda here: here["id"] == "search")
    page.press("Tab")
    page.press("/")
    page.type("lives").wait_for(".scored .line", 1)
    for key in ("ArrowDown", "ArrowDown", "Enter"):
        page.press(key)
    page.wait("document.querySelector('#life .content')?.textContent === 'Ada lives in Lisbon'")
    page.wait("document.querySelector('#life').contains(document.activeElement)")
    tab_to(lambda here: here["id"] == "edit")
    page.press("Enter").wait("document.activeElement.id === 'edit-content'")
    page.press("End", 2)
    page.type(", near the river")
    page.press("Enter", 2)
    page.wait("document.querySelector('#life .content')?.textContent === 'Ada lives in Lisbon, near the river'")
    page.press("Escape").wait("document.querySelector('#life').hidden")
    page.wait("document.activeElement !== document.body")
    page.press("1").wait_for(".line")
    assert lines(page)
    page.press("2").wait("location.hash === '#context'")
    page.press("?").wait_for("#keys")
    page.press("Escape").wait_for("#keys", 0)
