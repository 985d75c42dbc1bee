"""Faults on demand, each as a client meets it."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from notes_emulator import Notes
from openproto_conformance.emulators import (
    CloseConnection,
    Drip,
    Emulator,
    Fault,
    Hang,
    HtmlWith200,
    Latency,
    ResetConnection,
    Status,
    TruncatedJson,
)

Http = Callable[[Emulator], httpx.Client]
NEW = {"text": "tea"}


def test_latency_delays_the_answer_and_not_the_effect(plain: Notes, http: Http) -> None:
    plain.faults.next(Latency(0.2))
    started = time.monotonic()
    assert http(plain).post("/notes", json=NEW).status_code == 201
    assert time.monotonic() - started >= 0.2
    plain.faults.next(Latency(30.0))
    with pytest.raises(httpx.ReadTimeout):
        http(plain).post("/notes", json=NEW, timeout=0.1)
    assert len(plain.notes) == 2


def test_a_drip_reaches_the_client_piece_by_piece_and_whole(plain: Notes, http: Http) -> None:
    plain.faults.next(Drip(0.002, size=3))
    with http(plain).stream("POST", "/notes", json=NEW) as answer:
        pieces = [*answer.iter_raw()]
    assert len(pieces) > 3
    assert json.loads(b"".join(pieces)) == plain.notes["1"]


@pytest.mark.parametrize("status", [401, 402, 429, 500, 503])
def test_a_status_has_the_vendors_error_shape_and_no_effect(plain: Notes, http: Http, status: int) -> None:
    plain.faults.next(Status(status, retry_after=1.5, headers={"x-quota": "0"}))
    answer = http(plain).post("/notes", json=NEW)
    assert (answer.status_code, list(answer.json())) == (status, ["error"])
    assert (answer.headers["retry-after"], answer.headers["x-quota"]) == ("1.5", "0")
    assert plain.notes == {}


def test_a_status_may_bring_its_own_body(plain: Notes, http: Http) -> None:
    plain.faults.next(Status(503, body={"detail": "over capacity"}))
    answer = http(plain).get("/notes")
    assert (answer.json(), "retry-after" in answer.headers) == ({"detail": "over capacity"}, False)


@pytest.mark.parametrize("fault", [CloseConnection(), ResetConnection(), CloseConnection(mid_body=True)])
def test_a_connection_cut_after_the_effect(plain: Notes, http: Http, fault: Fault) -> None:
    plain.faults.next(fault)
    with pytest.raises(httpx.TransportError):
        http(plain).post("/notes", json=NEW)
    assert len(plain.notes) == 1


@pytest.mark.parametrize("fault", [CloseConnection(applied=False), ResetConnection(applied=False)])
def test_a_connection_cut_before_the_effect(plain: Notes, http: Http, fault: Fault) -> None:
    plain.faults.next(fault)
    with pytest.raises(httpx.TransportError):
        http(plain).post("/notes", json=NEW)
    assert plain.notes == {}


def test_a_reset_is_a_reset(plain: Notes) -> None:
    plain.faults.next(ResetConnection())
    with socket.create_connection(("127.0.0.1", int(plain.url.rpartition(":")[2])), timeout=5.0) as client:
        client.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        with pytest.raises(ConnectionResetError):
            client.recv(100)


def test_truncated_json_is_framed_rightly(plain: Notes, http: Http) -> None:
    plain.faults.next(TruncatedJson())
    answer = http(plain).post("/notes", json=NEW)
    assert answer.status_code == 201
    with pytest.raises(ValueError, match=r"Unterminated|Expecting"):
        answer.json()
    assert len(plain.notes) == 1


def test_html_with_status_200(plain: Notes, http: Http) -> None:
    plain.faults.next(HtmlWith200())
    answer = http(plain).post("/notes", json=NEW)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert plain.notes == {}


def test_what_hangs_goes_on_when_the_fault_is_lifted(plain: Notes, http: Http) -> None:
    with ThreadPoolExecutor() as threads:
        with plain.faults.always(Hang(), method="POST"):
            waiting = threads.submit(http(plain).post, "/notes", json=NEW)
            plain.counters.wait_for(lambda seen: seen.in_flight == 1)
            assert http(plain).get("/notes").json() == []
            assert not waiting.done()
        assert waiting.result().status_code == 201


def test_who_leaves_while_it_hangs_is_forgotten(plain: Notes, http: Http) -> None:
    with plain.faults.always(Hang()):
        with pytest.raises(httpx.ReadTimeout):
            http(plain).post("/notes", json=NEW, timeout=0.1)
        plain.counters.wait_for(lambda seen: seen.disconnects == 1 and seen.in_flight == 0)
    assert http(plain).get("/notes").json() == []


def test_faults_come_in_order_and_only_where_they_fit(plain: Notes, http: Http) -> None:
    plain.faults.next(Status(500), Status(503), method="GET", path="/notes/*")
    client = http(plain)
    asked = [client.get("/notes"), client.get("/notes/1"), client.post("/notes", json=NEW), client.get("/notes/1")]
    assert [answer.status_code for answer in asked] == [200, 500, 201, 503]
    assert client.get("/notes/1").status_code == 200


def test_always_lasts_until_it_is_lifted(plain: Notes, http: Http) -> None:
    client = http(plain)
    lasting = plain.faults.always(Status(500))
    assert {client.get("/notes").status_code for _ in range(3)} == {500}
    lasting.close()
    assert client.get("/notes").status_code == 200
    plain.faults.always(Status(500))
    plain.faults.clear()
    assert client.get("/notes").status_code == 200


async def test_a_cancelled_call_is_seen_at_once(plain: Notes) -> None:
    plain.faults.next(Latency(30.0))
    headers = {"authorization": f"Bearer {plain.api_key}"}
    async with httpx.AsyncClient(base_url=plain.url, headers=headers, trust_env=False) as client:
        call = asyncio.ensure_future(client.post("/notes", json=NEW))
        await asyncio.to_thread(plain.counters.wait_for, lambda seen: seen.in_flight == 1)
        call.cancel()
        await asyncio.to_thread(plain.counters.wait_for, lambda seen: seen.disconnects == 1 and seen.open == 0)
        assert plain.counters.exchanges[-1] == ("POST", "/notes", None)
        assert (await client.get("/notes")).json() == [{"id": "1", "text": "tea"}]
