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
from inspecting import enter, lines, open_memory

pytestmark = pytest.mark.ui

PICTURES = Path(__file__).parents[2] / ".ui"
VIEWS = ("memories", "context", "duplicates", "activity", "figures")


@pytest.fixture(scope="session")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The source of axe-core, as npm has it."""
    folder = tmp_path_factory.mktemp("axe")
    done = subprocess.run(
        ["npm", "pack", "axe-core@4", "--silent"], cwd=folder, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, f"axe-core comes from npm, which answered: {done.stderr[-500:]}"
    with tarfile.open(folder / done.stdout.strip()) as package:
        member = package.extractfile("package/axe.min.js")
        assert member is not None
        return member.read().decode()


def bad(page: Page, axe: str) -> list[Any]:
    """What axe-core finds that is serious or critical."""
    page.run(f"void(window.axe ?? (() => {{ {axe} }})())")
    found: list[Any] = page.run(
        """axe.run({resultTypes: ['violations']}).then(found => found.violations
        .filter(each => ['serious', 'critical'].includes(each.impact))
        .map(each => [each.id, each.nodes.map(node => [node.html.slice(0, 200), node.failureSummary])]))"""
    )
    return found


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_axe_finds_nothing_serious_and_pictures_are_kept(
    page: Page, server: httpx.Client, axe: str, dark: bool
) -> None:
    name = "dark" if dark else "light"

    def check(what: str) -> None:
        page.picture(PICTURES / f"{name}-{what}.png")
        assert bad(page, axe) == [], what

    page.look(dark=dark)
    page.open(f"{server.base_url}/ui")
    page.wait("document.querySelectorAll('.users button').length")
    check("start")
    enter(page, server)
    for view in VIEWS:
        page.run(f"location.hash = '{view}'")
        page.wait(f"document.querySelector('#to-{view}[aria-current]')")
        if view == "context":
            page.run("document.querySelector('#question').focus()")
            page.type("coffee")
            page.press("Enter", 2)
            page.wait("document.querySelector('.prompt')")
        if view == "memories":
            page.click("[aria-controls=filters]")
        page.run("new Promise(done => setTimeout(done, 200))")
        check(view)
    page.run("location.hash = 'memories'")
    page.wait("document.querySelector('.line')")
    page.click("#search")
    page.type("coffee")
    page.wait("document.querySelectorAll('.scored .line [data-part]').length")
    open_memory(page, "black")
    check("search")
    page.run("document.querySelector('#search').select()")
    page.type("lives")
    page.wait("document.querySelectorAll('.scored .line').length === 1")
    page.run("document.activeElement.blur()")
    open_memory(page, "Lisbon")
    page.wait("document.querySelector('.lines .current')")
    check("life")
    for key, dialog in (("e", "#edit-dialog"), ("?", "#keys")):
        page.press(key)
        page.wait(f"document.querySelector('{dialog}')")
        check(dialog.removeprefix("#"))
        page.press("Escape")
        page.wait(f"!document.querySelector('{dialog}')")
    page.press("d")
    page.wait("document.querySelector('.toast')")
    check("undo")
    page.open(f"{server.base_url}/docs")
    page.wait("document.querySelectorAll('article').length > 30")
    check("docs")


def test_a_phone_shows_all_of_it_without_scrolling_sideways(page: Page, server: httpx.Client) -> None:
    page.look(width=360, height=740, phone=True)

    def check(what: str) -> None:
        page.picture(PICTURES / f"phone-{what}.png")
        assert page.run("document.documentElement.scrollWidth") == 360, what
        wide = "[...document.querySelectorAll('main, #life, #side, dialog')].filter(each => each.checkVisibility())"
        assert page.run(f"{wide}.every(each => each.scrollWidth <= each.clientWidth)"), what

    enter(page, server)
    check("memories")
    page.click("#open-side")
    check("side")
    page.click("#open-side")
    page.click("[aria-controls=filters]")
    check("filters")
    open_memory(page, "Lisbon")
    page.wait("document.querySelector('.lines .current')")
    check("life")
    page.press("e")
    page.wait("document.querySelector('#edit-dialog')")
    check("edit")
    page.press("Escape")
    for view in VIEWS[1:]:
        page.run(f"location.hash = '{view}'")
        page.wait(f"document.querySelector('#to-{view}[aria-current]')")
        check(view)
    page.open(f"{server.base_url}/docs")
    page.wait("document.querySelectorAll('article').length > 30")
    check("docs")


def test_a_keyboard_is_enough(page: Page, server: httpx.Client) -> None:
    page.open(f"{server.base_url}/ui")
    page.wait("document.querySelectorAll('.users button').length")

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

    tab_to(lambda here: here["text"] == "ada")
    page.press("Enter")
    page.wait("document.querySelectorAll('.line').length === 5")
    tab_to(lambda here: here["text"] == "food5" or "food" in here["text"])
    tab_to(lambda here: here["id"] == "search")
    page.press("Tab")
    page.press("/")
    page.type("lives")
    page.wait("document.querySelectorAll('.scored .line').length === 1")
    page.press("ArrowDown")
    page.press("ArrowDown")
    page.press("Enter")
    page.wait("document.querySelector('#life .content')?.textContent === 'Ada lives in Lisbon'")
    page.wait("document.querySelector('#life').contains(document.activeElement)")
    tab_to(lambda here: here["id"] == "edit")
    page.press("Enter")
    page.wait("document.activeElement.id === 'edit-content'")
    page.press("End", 2)
    page.type(", near the river")
    page.press("Enter", 2)
    page.wait("document.querySelector('#life .content')?.textContent === 'Ada lives in Lisbon, near the river'")
    page.press("Escape")
    page.wait("document.querySelector('#life').hidden")
    page.wait("document.activeElement !== document.body")
    page.press("1")
    page.wait("document.querySelector('.line')")
    assert lines(page)
    page.press("2")
    page.wait("location.hash === '#context'")
    page.press("?")
    page.wait("document.querySelector('#keys')")
    page.press("Escape")
    page.wait("!document.querySelector('#keys')")


@pytest.mark.parametrize("path", ["ui", "docs"])
def test_a_page_is_small_and_comes_from_the_server_alone(page: Page, server: httpx.Client, path: str) -> None:
    page.open(f"{server.base_url}/{path}")
    page.wait("document.querySelectorAll('nav a').length > 3")
    assert all(url.startswith(str(server.base_url)) for url in page.requests)
    files = {url: size for url, size in page.bytes.items() if f"/{path}" in url}
    assert len(files) >= 5
    assert 10_000 < sum(files.values()) <= 150_000
