"""The inspector in a real Chromium: what a person does with it."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import httpx
import pytest
from chromium import Page
from inspecting import Show, add, asked_context, choose, click, contents, enter, expected, lines, open_memory

from openproto.server.keys import ApiKeys, new_key

pytestmark = pytest.mark.ui


def log_in(page: Page, key: str) -> None:
    page.type(key, into="#api-key")
    page.press("Enter")


def test_a_key_opens_what_it_may_and_stays_in_the_memory_of_the_tab(page: Page, show: Show) -> None:
    everyone, one = new_key("all", ["*"]), new_key("one", ["ada"], read_only=True)
    server = show(everyone, one)
    add(server, "Ada takes her coffee black")
    add(server, "Ben likes tea", user_id="ben")
    page.open(f"{server.base_url}/ui")
    log_in(page, "op_wrong")
    page.wait("document.querySelector('#login-fault').textContent.includes('not known here')")
    expected(page, "401")

    log_in(page, everyone[0])
    page.wait_for("#login", 0)
    page.wait_for(".users button", 2)
    choose(page, "ben")
    assert lines(page) == ["Ben likes tea"]
    kept = page.run(
        """Promise.all([location.href, document.cookie, JSON.stringify({...localStorage, ...sessionStorage}),
        indexedDB.databases(), caches.keys()]).then(JSON.stringify)"""
    )
    assert json.loads(kept)[1:] == ["", "{}", [], []]
    assert all(everyone[0] not in url and url.startswith(str(server.base_url)) for url in page.requests)

    page.click("#sign-out")
    log_in(page, one[0])
    page.wait_for(".line", 1)
    assert page.texts(".users button") == ["ada"]
    assert "may only read" in page.run("document.querySelector('header').innerText")
    open_memory(page, "coffee")
    for key in "ned":
        page.press(key)
    assert page.texts("#edit, #delete, dialog, .toast") == []
    assert not page.run("document.querySelector('#to-figures').checkVisibility()")


def test_what_a_key_may_not_do_is_named_and_a_revoked_one_shows_nothing(page: Page, show: Show, tmp_path: Path) -> None:
    kept, revoked = new_key("kept", ["*"]), new_key("revoked", [f"user{n}" for n in range(9)])
    server = show(kept, revoked)
    add(server, "User0 takes her coffee black", user_id="user0")
    page.open(f"{server.base_url}/ui")
    log_in(page, revoked[0])
    page.wait_for(".users button", 9)
    page.type("eve", into="#find-user")
    page.press("Enter").wait_for(".toast.alert")
    assert "This key does not have the right: this key may not act for that user" in page.texts(".toast.alert")[0]
    choose(page, "user0")
    page.wait_for(".line", 1)
    (tmp_path / "keys.json").write_bytes(ApiKeys.dump_json([kept[1]]))
    while server.get("/users", headers={"X-API-Key": revoked[0]}).status_code != 401:
        time.sleep(0.05)
    page.run("location.hash = 'duplicates'")
    page.wait("document.querySelector('#login-fault')?.textContent.includes('not known here')")
    assert "coffee" not in page.run("document.body.textContent")
    page.faults[:] = [fault for fault in page.faults if "403" not in fault]
    expected(page, "401")


def test_scopes_filters_and_search_narrow_the_table(page: Page, server: httpx.Client) -> None:
    enter(page, server)
    assert len(lines(page)) == 5
    page.click(".tree [data-path='twist:food']")
    page.click(".tree [data-path='food/drinks']").wait_for(".line", 2)
    page.click(".chip").wait_for(".line", 5)
    page.click("[aria-controls=filters]").wait("document.activeElement.id === 'filter-tag'")
    page.type("coffee")
    page.press("Enter").wait_for(".line", 2)
    page.click(".chip")
    page.run("""(input => { input.value = 'now'; input.dispatchEvent(new Event('change')); })
        (document.querySelector('#filter-validity'))""")
    page.wait_for(".line", 4)
    assert "Ada lives in Porto" not in lines(page)
    page.click("#search")
    page.type("coffee").wait_for(".scored .line", 2)
    assert set(lines(page)) == {"Ada takes her coffee black", "ada takes  her coffee black."}
    page.wait("parseFloat(document.querySelector('.line .score').textContent) > 0")
    best = server.post("/memories/search", json={"q": "coffee", "user_id": "ada", "explain": True}).json()["results"][0]
    parts = " + ".join(f"{name} {value:.3f}" for name, value in best["parts"].items())
    assert page.texts("#row-0 .score") == [f"{best['score']:.3f}, {parts}"]
    assert page.run("document.querySelector('.legend').innerText").split() == [*best["parts"]]
    wide = "getComputedStyle(document.querySelector('#row-0 [data-part=words]')).width"
    assert float(page.run(wide).removesuffix("px")) > 1
    open_memory(page, best["memory"]["content"])
    assert f"{best['score']:.3f} = {parts}" in page.run("document.querySelector('#life dl').innerText")
    page.type("xylophone", into="#search").wait("document.querySelector('.empty h2')?.textContent === 'Nothing found'")


def test_a_memory_s_life_shows_what_was_current_when(page: Page, server: httpx.Client) -> None:
    enter(page, server)
    open_memory(page, "Lisbon")
    states = "[...document.querySelectorAll('.lines .state')].map(each => each.textContent).join()"
    page.wait(f"{states} === 'not current,current'")
    page.run("""(slider => { slider.value = 300; slider.dispatchEvent(new Event('input')); })
        (document.querySelector('#as-of'))""")
    page.wait(f"{states} === 'current,not current'")
    page.click(".lines button").wait("document.querySelector('#life .content').textContent === 'Ada lives in Porto'")
    assert re.search(r"Superseded by\s+\S+", page.run("document.querySelector('#life dl').innerText"))
    assert "superseded" in page.run("document.querySelector('#life h2').innerText")
    page.wait("document.querySelector('.entries')?.innerText.includes('add')")
    open_memory(page, "Ada takes her coffee")
    assert re.search(r'x-app\s*{\s*"n": 1\s*}', page.run("document.querySelector('#life dl').innerText"))


def test_a_conflict_shows_both_states_and_overwrites_nothing(page: Page, server: httpx.Client) -> None:
    record = add(server, "Ada reads in the evening", user_id="eve", tags=["a", "b"])
    enter(page, server, "eve")
    open_memory(page, "evening")
    page.press("e").wait_for("#edit-content")
    server.patch(f"/memories/{record['id']}", json={"content": "Ada reads at noon"})
    page.type("Ada reads at night", into="#edit-content")
    page.press("Enter", 2).wait_for("#conflict")
    expected(page, "412")
    said = page.run("document.querySelector('#conflict').innerText")
    assert "Ada reads at noon" in said
    assert "Ada reads at night" in said
    assert contents(server, "eve") == ["Ada reads at noon"]
    page.click("#conflict .main").wait("document.querySelector('#edit-content')?.value === 'Ada reads at night'")
    page.press("Enter", 2).wait("document.querySelector('#life .content')?.textContent === 'Ada reads at night'")
    assert lines(page) == ["Ada reads at night"]
    stored = server.get(f"/memories/{record['id']}").json()
    assert (stored["content"], stored["tags"]) == ("Ada reads at night", ["a", "b"])


def test_what_is_added_is_stored_as_written(page: Page, server: httpx.Client) -> None:
    enter(page, server, "ben")
    page.press("n").wait_for("#edit-content")
    page.type("Ben swims\non Fridays")
    for name, text in {"scope": "sport", "tags": "one\ntwo words", "confidence": "0.5", "key": "swimming"}.items():
        page.type(text, into=f"#edit-{name}")
    page.press("Enter", 2).wait("document.querySelector('#life .content')?.textContent.startsWith('Ben swims')")
    stored = server.get("/memories/by-key", params={"user_id": "ben", "key": "swimming"}).json()
    written = {"content": "Ben swims\non Fridays", "scope": "sport", "tags": ["one", "two words"], "confidence": 0.5}
    assert written.items() <= stored.items()
    page.wait_for(".line", 2)
    page.press("n").wait_for("#edit-content")
    page.type("again")
    page.type("swimming", into="#edit-key")
    page.press("Enter", 2).wait("!document.querySelector('#edit-dialog .fault').hidden")
    expected(page, "409")


def test_a_deletion_can_be_taken_back_until_it_happens(page: Page, server: httpx.Client) -> None:
    enter(page, server)
    for take_back in (lambda: page.click(".toast button"), lambda: page.press("z")):
        open_memory(page, "Lisbon")
        page.press("d").wait_for(".line", 4)
        take_back()
        page.wait_for(".line", 5)
        assert len(contents(server, "ada")) == 5
        page.press("Escape")
    open_memory(page, "Lisbon")
    page.click("#delete")
    choose(page, "ben")  # who goes elsewhere has decided
    choose(page, "ada")
    page.wait_for(".line", 4)
    assert len(contents(server, "ada")) == 4


def test_context_duplicates_activity_and_figures_say_what_the_server_says(page: Page, server: httpx.Client) -> None:
    enter(page, server)
    page.click("#to-context")
    asked_context(page, "coffee")
    block = server.post("/context", json={"query": "coffee", "user_id": "ada", "token_budget": 500}).json()
    assert page.texts(".prompt p") == block["text"].split("\n")
    assert f"{block['token_count']} of 500 tokens" in page.run("document.querySelector('.meter').innerText")
    page.click("#to-duplicates").wait_for(".same .card", 2)
    page.click("#to-activity").wait("document.querySelector('tbody')?.innerText.includes('openproto-inspector')")
    page.click("#to-figures").wait("Number(document.querySelector('.cards dd')?.textContent) > 5")


def test_the_export_is_what_the_store_holds_oldest_first(page: Page, server: httpx.Client, tmp_path: Path) -> None:
    enter(page, server)
    page.send("Page.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path / "downloads"))
    click(page, "button", "each.textContent === 'Export'")
    page.wait("document.querySelector('.status').textContent === '5 memories exported'")
    path = tmp_path / "downloads" / "memories.jsonl"
    while not path.exists():
        page.pause(20)
    records = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    assert records == server.get("/memories", params={"user_id": "ada"}).json()["items"][::-1]


def test_ten_thousand_memories_scroll_with_a_few_rows(page: Page, server: httpx.Client) -> None:
    many = 10_000
    for start in range(0, many, 500):
        items = [{"content": f"note {n}", "user_id": "many"} for n in range(start, start + 500)]
        assert server.post("/memories/batch", json={"items": items}).status_code == 207
    enter(page, server, "many")
    page.run("document.querySelector('.table').focus()")
    most = 0
    while page.texts(".status") != [f"{many:,} memories"]:
        page.press("End")
        page.pause(10)
        most = max(most, len(page.texts(".line")))
    page.press("End").wait("document.querySelector('[aria-selected=true]')?.textContent.startsWith('note 0')")
    for step in range(21):
        page.run(f"(each => {{ each.scrollTop = each.scrollHeight * {step} / 20 }})(document.querySelector('.table'))")
        page.run("new Promise(requestAnimationFrame)")
        most = max(most, len(page.texts(".line")))
    assert 10 < most < 80
    page.press("Home")
    page.wait(f"document.querySelector('[aria-selected=true]')?.textContent.startsWith('note {many - 1}')")
