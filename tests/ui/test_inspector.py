"""The inspector in a real Chromium: what a person does with it."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import httpx
import pytest
from chromium import Page
from inspecting import Show, add, choose, enter, lines, open_memory

from openproto.server.keys import ApiKeys, new_key

pytestmark = pytest.mark.ui


def log_in(page: Page, key: str) -> None:
    page.wait("document.querySelector('#login')")
    page.run("document.querySelector('#api-key').focus(); document.querySelector('#api-key').value = ''")
    page.type(key)
    page.press("Enter")


def test_a_key_opens_what_it_may_and_stays_in_the_memory_of_the_tab(page: Page, show: Show) -> None:
    made = [new_key("all", ["*"]), new_key("one", ["ada"], read_only=True)]
    server = show([entry for _, entry in made], **{"X-API-Key": made[0][0]})
    add(server, "Ada takes her coffee black")
    add(server, "Ben likes tea", user_id="ben")
    page.open(f"{server.base_url}/ui")
    log_in(page, "op_wrong")
    page.wait("document.querySelector('#login-fault').textContent.includes('not known here')")
    assert [fault for fault in page.faults if "401" not in fault] == []
    page.faults.clear()

    log_in(page, made[0][0])
    page.wait("!document.querySelector('#login') && document.querySelectorAll('.users button').length === 2")
    choose(page, "ben")
    assert lines(page) == ["Ben likes tea"]
    kept = page.run(
        """Promise.all([location.href, document.cookie, JSON.stringify({...localStorage, ...sessionStorage}),
        indexedDB.databases(), caches.keys()]).then(JSON.stringify)"""
    )
    assert made[0][0] not in kept
    assert json.loads(kept)[1:] == ["", "{}", [], []]
    assert not [url for url in page.requests if made[0][0] in url or not url.startswith(str(server.base_url))]

    page.click("#sign-out")
    log_in(page, made[1][0])
    page.wait("document.querySelectorAll('.line').length === 1")
    assert page.run("[...document.querySelectorAll('.users button')].map(each => each.textContent)") == ["ada"]
    assert "may only read" in page.run("document.querySelector('header').innerText")
    open_memory(page, "coffee")
    page.press("n")
    page.press("e")
    page.press("d")
    assert page.run("document.querySelectorAll('#edit, #delete, dialog, .toast').length") == 0
    assert not page.run("document.querySelector('#to-figures').checkVisibility()")


def test_a_right_that_a_key_does_not_have_is_named(page: Page, show: Show) -> None:
    key, entry = new_key("some", [f"user{n}" for n in range(9)])
    server = show([entry], **{"X-API-Key": key})
    page.open(f"{server.base_url}/ui")
    log_in(page, key)
    page.wait("document.querySelectorAll('.users button').length === 9")
    page.run("document.querySelector('#find-user').focus()")
    page.type("eve")
    page.press("Enter")
    page.wait("document.querySelector('.toast.alert')")
    said = page.run("document.querySelector('.toast.alert').innerText")
    assert "This key does not have the right: this key may not act for that user" in said
    assert [fault for fault in page.faults if "403" not in fault] == []
    page.faults.clear()


def test_a_key_that_is_revoked_meanwhile_shows_nothing_any_more(page: Page, show: Show, tmp_path: Path) -> None:
    made = [new_key("kept", ["*"]), new_key("revoked", ["ada"])]
    server = show([entry for _, entry in made], **{"X-API-Key": made[0][0]})
    add(server, "Ada takes her coffee black")
    page.open(f"{server.base_url}/ui")
    log_in(page, made[1][0])
    page.wait("document.querySelectorAll('.line').length === 1")
    (tmp_path / "keys.json").write_bytes(ApiKeys.dump_json([made[0][1]]))
    while server.get("/users", headers={"X-API-Key": made[1][0]}).status_code != 401:
        time.sleep(0.05)
    page.run("location.hash = 'duplicates'")
    page.wait("document.querySelector('#login-fault')?.textContent.includes('not known here')")
    assert "coffee" not in page.run("document.body.textContent")
    assert [fault for fault in page.faults if "401" not in fault] == []
    page.faults.clear()


def test_scopes_filters_and_search_narrow_the_table(page: Page, server: httpx.Client) -> None:
    enter(page, server)
    assert len(lines(page)) == 5
    page.click(".tree [data-path='twist:food']")
    page.click(".tree [data-path='food/drinks']")
    page.wait("document.querySelectorAll('.line').length === 2")
    page.click(".chip")
    page.wait("document.querySelectorAll('.line').length === 5")
    page.click("[aria-controls=filters]")
    page.wait("document.activeElement.id === 'filter-tag'")
    page.type("coffee")
    page.press("Enter")
    page.wait("document.querySelectorAll('.line').length === 2")
    page.click(".chip")
    page.run("""(input => { input.value = 'now'; input.dispatchEvent(new Event('change')); })
        (document.querySelector('#filter-validity'))""")
    page.wait("document.querySelectorAll('.line').length === 4")
    assert "Ada lives in Porto" not in lines(page)
    page.click("#search")
    page.type("coffee")
    page.wait("document.querySelectorAll('.scored .line').length === 2")
    assert set(lines(page)) == {"Ada takes her coffee black", "ada takes  her coffee black."}
    page.wait("parseFloat(document.querySelector('.line .score').textContent) > 0")
    best = server.post("/memories/search", json={"q": "coffee", "user_id": "ada", "explain": True}).json()["results"][0]
    parts = " + ".join(f"{name} {value:.3f}" for name, value in best["parts"].items())
    assert page.run("document.querySelector('#row-0 .score').textContent") == f"{best['score']:.3f}, {parts}"
    assert page.run("document.querySelector('.legend').innerText").split() == [*best["parts"]]
    wide = "getComputedStyle(document.querySelector('#row-0 [data-part=words]')).width"
    assert float(page.run(wide).removesuffix("px")) > 1
    open_memory(page, best["memory"]["content"])
    assert f"{best['score']:.3f} = {parts}" in page.run("document.querySelector('#life dl').innerText")
    page.type(" zebra xylophone")
    page.run("document.querySelector('#search').select()")
    page.type("xylophone")
    page.wait("document.querySelector('.empty h2')?.textContent === 'Nothing found'")


def test_a_memory_s_life_shows_what_was_current_when(page: Page, server: httpx.Client) -> None:
    enter(page, server)
    open_memory(page, "Lisbon")
    states = "[...document.querySelectorAll('.lines .state')].map(each => each.textContent).join()"
    page.wait(f"{states} === 'not current,current'")
    page.run("""(slider => { slider.value = 300; slider.dispatchEvent(new Event('input')); })
        (document.querySelector('#as-of'))""")
    page.wait(f"{states} === 'current,not current'")
    page.click(".lines button")
    page.wait("document.querySelector('#life .content').textContent === 'Ada lives in Porto'")
    fields = page.run("document.querySelector('#life dl').innerText")
    assert re.search(r"Superseded by\s+\S+", fields)
    assert "superseded" in page.run("document.querySelector('#life h2').innerText")
    page.wait("document.querySelector('.entries')?.innerText.includes('add')")
    open_memory(page, "Ada takes her coffee")
    assert re.search(r'x-app\s*{\s*"n": 1\s*}', page.run("document.querySelector('#life dl').innerText"))


def test_a_conflict_shows_both_states_and_overwrites_nothing(page: Page, server: httpx.Client) -> None:
    record = add(server, "Ada reads in the evening", user_id="eve", tags=["a", "b"])
    enter(page, server, "eve")
    open_memory(page, "evening")
    page.press("e")
    page.wait("document.querySelector('#edit-content')")
    server.patch(f"/memories/{record['id']}", json={"content": "Ada reads at noon"})
    page.run("document.querySelector('#edit-content').select()")
    page.type("Ada reads at night")
    page.press("Enter", 2)
    page.wait("document.querySelector('#conflict')")
    assert [fault for fault in page.faults if "412" not in fault] == []
    page.faults.clear()
    said = page.run("document.querySelector('#conflict').innerText")
    assert "Ada reads at noon" in said
    assert "Ada reads at night" in said
    assert server.get(f"/memories/{record['id']}").json()["content"] == "Ada reads at noon"
    page.click("#conflict .main")
    page.wait("document.querySelector('#edit-content')?.value === 'Ada reads at night'")
    page.press("Enter", 2)
    page.wait("document.querySelector('#life .content')?.textContent === 'Ada reads at night'")
    assert lines(page) == ["Ada reads at night"]
    stored = server.get(f"/memories/{record['id']}").json()
    assert (stored["content"], stored["tags"]) == ("Ada reads at night", ["a", "b"])


def test_what_is_added_is_stored_as_written(page: Page, server: httpx.Client) -> None:
    enter(page, server, "ben")
    page.press("n")
    page.wait("document.querySelector('#edit-content')")
    page.type("Ben swims\non Fridays")
    for name, text in {"scope": "sport", "tags": "one\ntwo words", "confidence": "0.5", "key": "swimming"}.items():
        page.run(f"document.querySelector('#edit-{name}').focus()")
        page.type(text)
    page.press("Enter", 2)
    page.wait("document.querySelector('#life .content')?.textContent.startsWith('Ben swims')")
    stored = server.get("/memories/by-key", params={"user_id": "ben", "key": "swimming"}).json()
    expected = {
        "content": "Ben swims\non Fridays", "scope": "sport", "tags": ["one", "two words"], "confidence": 0.5,
    }  # fmt: skip
    assert expected.items() <= stored.items()
    page.wait("document.querySelectorAll('.line').length === 2")
    page.press("n")
    page.wait("document.querySelector('#edit-content')")
    page.type("again")
    page.run("document.querySelector('#edit-key').focus()")
    page.type("swimming")
    page.press("Enter", 2)
    page.wait("!document.querySelector('#edit-dialog .fault').hidden")
    assert [fault for fault in page.faults if "409" not in fault] == []
    page.faults.clear()


def test_a_deletion_can_be_taken_back_until_it_happens(page: Page, server: httpx.Client) -> None:
    enter(page, server)
    for take_back in (lambda: page.click(".toast button"), lambda: page.press("z")):
        open_memory(page, "Lisbon")
        page.press("d")
        page.wait("document.querySelectorAll('.line').length === 4")
        take_back()
        page.wait("document.querySelectorAll('.line').length === 5")
        assert len(server.get("/memories", params={"user_id": "ada"}).json()["items"]) == 5
        page.press("Escape")
    open_memory(page, "Lisbon")
    page.click("#delete")
    choose(page, "ben")  # who goes elsewhere has decided
    choose(page, "ada")
    page.wait("document.querySelectorAll('.line').length === 4")
    assert len(server.get("/memories", params={"user_id": "ada"}).json()["items"]) == 4


def test_context_duplicates_activity_and_figures_say_what_the_server_says(page: Page, server: httpx.Client) -> None:
    enter(page, server)
    page.click("#to-context")
    page.click("#question")
    page.type("coffee")
    page.press("Enter", 2)
    page.wait("document.querySelector('.prompt')")
    asked = {"query": "coffee", "user_id": "ada", "token_budget": 500}
    block = server.post("/context", json=asked).json()
    assert page.run("[...document.querySelectorAll('.prompt p')].map(each => each.textContent)") == (
        block["text"].split("\n")
    )
    assert f"{block['token_count']} of 500 tokens" in page.run("document.querySelector('.meter').innerText")
    page.click("#to-duplicates")
    page.wait("document.querySelectorAll('.same .card').length === 2")
    page.click("#to-activity")
    page.wait("document.querySelector('tbody')?.innerText.includes('openproto-inspector')")
    page.click("#to-figures")
    page.wait("Number(document.querySelector('.cards dd')?.textContent) > 5")


def test_the_export_is_what_the_store_holds_oldest_first(page: Page, server: httpx.Client, tmp_path: Path) -> None:
    enter(page, server)
    page.send("Page.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path / "downloads"))
    page.run("[...document.querySelectorAll('button')].find(each => each.textContent === 'Export').click()")
    page.wait("document.querySelector('.status').textContent === '5 memories exported'")
    path = tmp_path / "downloads" / "memories.jsonl"
    while not path.exists():
        page.run("new Promise(done => setTimeout(done, 20))")
    records = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    assert records == server.get("/memories", params={"user_id": "ada"}).json()["items"][::-1]


def test_fifty_thousand_memories_scroll_with_a_few_rows(page: Page, server: httpx.Client) -> None:
    many = 50_000
    for start in range(0, many, 500):
        items = [{"content": f"note {n}", "user_id": "many"} for n in range(start, start + 500)]
        assert server.post("/memories/batch", json={"items": items}).status_code == 207
    enter(page, server, "many")
    page.run("document.querySelector('.table').focus()")
    loaded, most = 0, 0
    while not re.match(rf"{many:,} memories$", status := page.run("document.querySelector('.status').innerText")):
        page.press("End")
        page.run("new Promise(done => setTimeout(done, 10))")
        most = max(most, page.run("document.querySelectorAll('.line').length"))
        assert int(status.split()[0].replace(",", "")) >= loaded
        loaded = int(status.split()[0].replace(",", ""))
    page.press("End")
    page.wait("document.querySelector('[aria-selected=true]')?.textContent.startsWith('note 0')")
    assert most < 80
    took = page.run(
        """(async table => { const frame = () => new Promise(requestAnimationFrame); const took = [];
        for (let step = 0; step <= 120; step++) { table.scrollTop = table.scrollHeight * step / 120;
            const start = performance.now(); await frame(); await frame();
            took.push(performance.now() - start); }
        return took.sort((a, b) => a - b); })(document.querySelector('.table'))"""
    )
    print(f"{many} memories: at most {most} rows, two frames took {took[60]:.0f} ms, at most {took[-1]:.0f}")  # noqa: T201
    page.press("Home")
    page.wait(f"document.querySelector('[aria-selected=true]')?.textContent.startsWith('note {many - 1}')")
