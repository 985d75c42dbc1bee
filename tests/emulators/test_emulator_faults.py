"""Faults on demand, each as a client meets it."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable
from typing import Any

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


@pytest.mark.parametrize(
    ("fault", "met", "applied"),
    [
        (Status(503), (503, {"error": "fault"}), False),
        (Status(429, body={"detail": "over capacity"}), (429, {"detail": "over capacity"}), False),
        (HtmlWith200(), (200, ValueError), False),
        (TruncatedJson(), (201, ValueError), True),
        (CloseConnection(), httpx.TransportError, True),
        (CloseConnection(mid_body=True), httpx.TransportError, True),
        (CloseConnection(applied=False), httpx.TransportError, False),
        (ResetConnection(), httpx.TransportError, True),
        (ResetConnection(applied=False), httpx.TransportError, False),
        (Latency(30.0), httpx.ReadTimeout, True),
        (Hang(), httpx.ReadTimeout, False),
    ],
    ids=repr,
)
def test_a_fault_meets_one_request(plain: Notes, http: Http, fault: Fault, met: Any, applied: bool) -> None:
    plain.faults.next(fault)
    client = http(plain)
    if isinstance(met, type):
        with pytest.raises(met):
            client.post("/notes", json=NEW, timeout=0.3)
        plain.counters.wait_for(lambda seen: seen.in_flight == 0)
    else:
        status, body = met
        answer = client.post("/notes", json=NEW)
        assert answer.status_code == status
        if isinstance(body, type):
            with pytest.raises(body):
                answer.json()
        else:
            assert answer.json().keys() == body.keys()
    assert client.get("/notes").json() == [{"id": "1", **NEW}] * applied


def test_faults_come_in_order_only_where_they_fit_and_always_until_they_are_lifted(plain: Notes, http: Http) -> None:
    plain.faults.next(Status(500), Status(503), method="GET", path="/notes/*")
    client = http(plain)
    asked = [client.get("/notes"), client.get("/notes/1"), client.post("/notes", json=NEW), client.get("/notes/1")]
    assert [answer.status_code for answer in asked] == [200, 500, 201, 503]
    lasting = plain.faults.always(Status(500))
    assert {client.get("/notes").status_code for _ in range(3)} == {500}
    lasting.close()
    assert client.get("/notes").status_code == 200
    plain.faults.always(Status(500))
    plain.faults.clear()
    assert client.get("/notes").status_code == 200


def test_a_status_has_its_headers_a_page_its_type_and_a_drip_its_pieces(plain: Notes, http: Http) -> None:
    plain.faults.next(
        Status(503, retry_after=1.5, headers={"x-quota": "0"}), Status(500), HtmlWith200(), Drip(0.002, 3)
    )
    first, second, page = (http(plain).get("/notes") for _ in range(3))
    assert (first.headers["retry-after"], first.headers["x-quota"]) == ("1.5", "0")
    assert "retry-after" not in second.headers
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    with http(plain).stream("POST", "/notes", json=NEW) as answer:
        pieces = [*answer.iter_raw()]
    assert len(pieces) > 3
    assert json.loads(b"".join(pieces)) == plain.notes["1"]


def test_a_reset_is_a_reset(plain: Notes) -> None:
    plain.faults.next(ResetConnection())
    with socket.create_connection(("127.0.0.1", int(plain.url.rpartition(":")[2])), timeout=5.0) as client:
        client.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        with pytest.raises(ConnectionResetError):
            client.recv(100)


async def test_what_hangs_goes_on_when_the_fault_is_lifted_unless_it_was_cancelled(plain: Notes) -> None:
    headers = {"authorization": f"Bearer {plain.api_key}"}
    async with httpx.AsyncClient(base_url=plain.url, headers=headers, trust_env=False) as client:
        with plain.faults.always(Hang(), method="POST"):
            calls = [asyncio.ensure_future(client.post("/notes", json=NEW)) for _ in range(2)]
            await asyncio.to_thread(plain.counters.wait_for, lambda seen: seen.in_flight == 2)
            assert (await client.get("/notes")).json() == []
            calls[0].cancel()
            await asyncio.to_thread(plain.counters.wait_for, lambda seen: seen.disconnects == 1)
            assert plain.counters.exchanges[-1] == ("POST", "/notes", None)
        assert (await calls[1]).status_code == 201
    assert len(plain.notes) == 1
