"""The server: connections, counters, routes, checks against the document, and faults on demand."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from notes_emulator import Notes, document
from openproto_conformance.emulators import (
    Answer,
    CloseConnection,
    Emulator,
    Fault,
    Hang,
    Latency,
    Request,
    ResetConnection,
    Status,
    route,
)
from openproto_conformance.emulators.document import VARIABLE
from openproto_conformance.emulators.routes import segments_of

Http = Callable[[Emulator], httpx.Client]


@pytest.fixture(params=["3.1.0", "3.0.1"])
def notes(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Notes]:
    path = tmp_path / "notes.json"
    path.write_text(json.dumps(document(request.param)))
    with Notes(document=path) as emulator:
        yield emulator


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> Iterator[Notes]:
    monkeypatch.delenv(VARIABLE, raising=False)
    with Notes() as emulator:
        yield emulator


@pytest.fixture
def http() -> Iterator[Http]:
    with ExitStack() as clients:

        def client(emulator: Emulator) -> httpx.Client:
            headers = {"authorization": f"Bearer {emulator.api_key}"}
            made = httpx.Client(base_url=emulator.url, headers=headers, timeout=5.0, trust_env=False)
            return clients.enter_context(made)

        yield client


def raw(emulator: Emulator, data: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", int(emulator.url.rpartition(":")[2])), timeout=5.0) as client:
        client.sendall(data)
        received = b""
        while piece := client.recv(65_536):
            received += piece
    return received


def test_it_stops_with_clients_connected_and_can_start_again(http: Http) -> None:
    emulator = Notes()
    before = threading.active_count()
    with emulator:
        assert http(emulator).get("/notes").status_code == 200
        with pytest.raises(RuntimeError, match="running already"):
            emulator.start()
        with pytest.raises(OSError, match=r"[Aa]ddress"):
            Notes().start(int(emulator.url.rpartition(":")[2]))
    assert threading.active_count() == before
    emulator.stop()
    with pytest.raises(RuntimeError, match="is not running"):
        _ = emulator.url
    with emulator:
        assert http(emulator).get("/notes").status_code == 200


@pytest.mark.parametrize(
    ("path", "segments"),
    [
        ("/notes/a%2Fb", ["", "notes", "a/b"]),
        ("/notes/%C3%BC%20?", ["", "notes", "ü ?"]),
        ("/notes/../health", ["", "health"]),
        ("/notes/%2E%2e/health", ["", "health"]),
        ("/notes/./1/..", ["", "notes", ""]),
        ("/../../notes/%252e", ["", "notes", "%2e"]),
        ("/notes/..a/.", ["", "notes", "..a", ""]),
    ],
)
def test_paths_are_resolved_and_decoded_segment_by_segment(path: str, segments: list[str]) -> None:
    assert segments_of(path) == segments


def test_a_request_that_the_document_allows_is_served(notes: Notes, http: Http) -> None:
    client = http(notes)
    assert client.post("/notes", json={"text": None}).status_code == 201
    assert client.post("/notes", json={"text": "tea", "stars": "many"}).status_code == 201
    asked = client.get("/notes", params={"limit": 5, "starred": "true", "ids": ["1", "2"], "unheard_of": 1})
    assert (asked.status_code, len(asked.json())) == (200, 2)
    assert client.get("/notes/3").json() == {"error": "no note 3"}
    assert client.delete("/notes/1").status_code == 204
    assert client.delete("/notes/1").status_code == 404
    assert client.get("/health").status_code == 200
    assert notes.violations == []


@pytest.mark.parametrize("wrong", [{"id": 1, "text": "tea"}, {"id": "1"}, {"id": "1", "text": "x", "more": 1}, "tea"])
def test_an_answer_that_the_document_forbids_is_a_violation(notes: Notes, http: Http, wrong: object) -> None:
    notes.wrong = wrong
    assert http(notes).get("/notes/latest").status_code == 599
    assert len(notes.violations) == 1
    assert notes.violations[0].startswith("GET /notes/latest: 200: ")


def test_every_answer_to_what_is_not_served_has_the_vendors_error_shape(notes: Notes, http: Http) -> None:
    client = http(notes)
    bare = httpx.Client(base_url=notes.url, trust_env=False)
    assert bare.get("/health").json() == {"ok": True}
    for asked, status in (
        (bare.get("/notes"), 401),
        (client.get("/nothing"), 404),
        (client.get("/notes/"), 404),
        (client.put("/notes"), 405),
    ):
        assert (asked.status_code, list(asked.json())) == (status, ["error"])
    assert raw(notes, b"\x16\x03\x01\x02\x00\r\n\r\n").startswith(b"HTTP/1.1 400")
    assert client.get("/notes/latest").status_code == 599, "a handler that raises"
    assert notes.violations == ["GET /notes/latest: IndexError: list index out of range"]
    bare.close()


def test_a_request_that_the_document_forbids_is_refused(notes: Notes, http: Http) -> None:
    client = http(notes)
    for asked, said in (
        (client.post("/notes", json={}), "body: 'text' is a required property"),
        (client.post("/notes", json={"text": 5}), "text: 5 is not "),
        (client.post("/notes"), "body: a body is required"),
        (client.post("/notes", content=b"{", headers={"content-type": "application/json"}), "body: malformed JSON"),
        (client.get("/notes", params={"limit": "many"}), "limit: 'many' is not of type 'integer'"),
        (client.get("/notes", params={"limit": 6}), "limit: 6 is greater than the maximum of 5"),
        (client.get("/notes", params={"limit": 0}), "limit: 0 is less than or equal to the minimum of 0"),
        (client.get("/notes", params={"starred": "perhaps"}), "starred: "),
        (client.get(f"/notes/{'x' * 21}"), "id: "),
    ):
        assert (asked.status_code, asked.json()["error"].startswith(said)) == (400, True), asked.json()
    assert (notes.notes, notes.violations) == ({}, [])


def test_what_the_document_lacks(tmp_path: Path, http: Http, monkeypatch: pytest.MonkeyPatch) -> None:
    class Odd(Notes):
        @route("GET", "/notes")
        def list(self, request: Request) -> Answer:
            return Answer(int(request.first("odd")), [])

    class More(Notes):
        @route("PUT", "/notes/{id}")
        def put(self, request: Request) -> Answer:
            return Answer(200)

    monkeypatch.setenv("OPENPROTO_SPECS", str(tmp_path))
    unchecked = "unchecked: OPENPROTO_SPECS names no folder with notes-openapi.json, which is invented"
    assert Notes().checked_against == unchecked
    (tmp_path / "notes-openapi.json").write_text(json.dumps(document()))
    assert Notes().checked_against == "checked against notes-openapi.json"
    with pytest.raises(LookupError, match=r"no PUT /notes/\{id\}"):
        More()
    with Odd() as emulator:
        statuses = [http(emulator).get("/notes", params={"odd": odd}).status_code for odd in (200, 202, 418)]
    assert statuses == [200, 599, 418], "any error is allowed"
    assert emulator.violations == ["GET /notes: 202: status 202 is not in the document"]


NEW = {"text": "tea"}


@pytest.mark.parametrize(
    ("fault", "met", "applied"),
    [
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
    with pytest.raises(met):
        client.post("/notes", json=NEW, timeout=0.3)
    plain.counters.wait_for(lambda seen: seen.in_flight == 0)
    assert client.get("/notes").json() == [{"id": "1", **NEW}] * applied


def test_faults_come_in_order_only_where_they_fit_and_always_until_they_are_lifted(plain: Notes, http: Http) -> None:
    plain.faults.next(Status(500, retry_after=1.5), Status(503), method="GET", path="/notes/*")
    client = http(plain)
    asked = [client.get("/notes"), client.get("/notes/1"), client.post("/notes", json=NEW), client.get("/notes/1")]
    assert [answer.status_code for answer in asked] == [200, 500, 201, 503]
    assert [answer.headers.get("retry-after") for answer in asked] == [None, "1.5", None, None]
    lasting = plain.faults.always(Status(500))
    assert {client.get("/notes").status_code for _ in range(3)} == {500}
    lasting.close()
    assert client.get("/notes").status_code == 200
    plain.faults.always(Status(500))
    plain.faults.clear()
    assert client.get("/notes").status_code == 200


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
    plain.counters.wait_for(lambda seen: seen.open == 0)
    assert (plain.counters.requests, plain.counters.max_in_flight) == (3, 3)
