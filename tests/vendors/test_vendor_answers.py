"""Every request that an adapter makes, and what becomes of an answer that is late, broken, or about something else."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import pytest
from hosted import HOSTED, Hosted
from openproto_conformance.emulators import (
    CloseConnection,
    Fault,
    Hang,
    HtmlWith200,
    ResetConnection,
    Status,
    TruncatedJson,
)
from openproto_conformance.emulators.connection import Connection
from pydantic_core import to_json

from openproto import AsyncMemory, errors

SECRET = "the secret of the mountain"

CALLS: dict[str, Callable[[AsyncMemory, str], Awaitable[object]]] = {
    "add": lambda memory, of: memory.add(SECRET, user_id="ann"),
    "get": lambda memory, of: memory.get(of),
    "search": lambda memory, of: memory.search(SECRET, "ann"),
    "list": lambda memory, of: memory.list("ann"),
    "update": lambda memory, of: memory.update(of, tags=["x"]),
    "change": lambda memory, of: memory.update(of, content=SECRET),
    "delete": lambda memory, of: memory.delete(of),
    "delete_all": lambda memory, of: memory.delete_all("ann"),
}


Bodies: TypeAlias = tuple[Any, ...]


class Request(NamedTuple):
    """A call of one vendor, the request that it makes, and answers with status 200 that are not that vendor's."""

    vendor: str
    call: str
    method: str
    path: str
    wrong: Bodies | None
    """None where nothing of the answer is read."""

    def __str__(self) -> str:
        return f"{self.vendor}-{self.call}"


SHAPES: Bodies = ({}, [], None, "fine", {"id": 7, "status": []}, {"results": 1}, {"documents": [{}]})
PASSAGES: Bodies = ({}, [{"passage": {}, "score": 0.0}], [{"score": "high"}])
LISTS: Bodies = ([], {"results": 5}, {"results": ["x"]}, {"results": [{"id": 7}]})
EVENTS: Bodies = ([], {"event_ids": "x"}, {"event_ids": []}, {"event_ids": ["../x"]})
ADDED: Bodies = ([], "x", *({"results": [row]} for row in ({}, 1, {"index": 3, "status": "created"})))
EDITED: Bodies = ([1], "x", {"results": [{}]}, {"results": [{"memory_id": 99, "status": "updated"}]})
ROW: Bodies = ({}, [], {"id": "x"}, {"id": 99}, {"id": None}, {"id": 1, "metadata": {"openproto": "{"}})
ROWS: Bodies = tuple({"memories": rows} for rows in ([{}], [7], 3, [{"id": 1, "metadata": "x"}]))
LISTED: Bodies = ([], {"x": 1}, *({"memories": rows} for rows in ([{}], [7], [{"memory_id": "../1"}])))
METADATA: Bodies = (["x"], {"source_metadata": [1]}, {"source_event_ids": 7})
HITS: Bodies = tuple(
    {"results": [{"id": "x", "content": "x", **hit}]}
    for hit in ({}, {"score": None}, *({"score": 1.0, "metadata": metadata} for metadata in METADATA))
)

REQUESTS = (
    Request("letta", "add", "POST", "*/passages", ({}, [], {"id": "x"})),
    Request("letta", "get", "POST", "*/search", PASSAGES),
    Request("letta", "search", "POST", "*/search", PASSAGES),
    Request("letta", "list", "POST", "*/search", PASSAGES),
    Request("letta", "update", "POST", "*/passages", ({}, {"id": "x"})),
    Request("letta", "delete", "DELETE", "*/passages/*", None),
    Request("letta", "delete_all", "DELETE", "*/archives/*", None),
    Request("mem0", "add", "POST", "*/add/", ([], {"results": 5}, {"status": "PENDING"})),
    Request("mem0", "get", "GET", "/v1/memories/*/", ([], {}, {"id": 7}, {"id": "x", "memory": "x", "user_id": "ann"})),
    Request("mem0", "search", "POST", "*/search/", LISTS),
    Request("mem0", "list", "POST", "/v3/memories/", LISTS),
    Request("mem0", "change", "PUT", "/v1/memories/*/", ()),
    Request("mem0", "delete", "DELETE", "/v1/memories/*/", ()),
    Request("mem0", "delete_all", "DELETE", "/v1/memories/", ([], {})),
    Request("memorysync", "add", "POST", "*/bulk-add", ADDED),
    Request("memorysync", "get", "GET", "/memory/[0-9]*", ROW),
    Request("memorysync", "search", "POST", "*/query", ([], *ROWS)),
    Request("memorysync", "list", "GET", "*/list", LISTED),
    Request("memorysync", "update", "POST", "*/batch-update", EDITED),
    Request("memorysync", "delete", "DELETE", "*/forget", ("x", {"deleted": 1}, 7, [None], [True])),
    Request("memsy", "add", "POST", "/v1/ingest", EVENTS),
    Request("memsy", "get", "POST", "/v1/status", ({"completedIds": 3},)),
    Request("memsy", "search", "POST", "/v1/search", HITS),
    Request("memsy", "list", "POST", "/v1/status", ({"completedIds": 3},)),
    Request("memsy", "change", "POST", "/v1/ingest", EVENTS),
    Request("supermemory", "add", "POST", "*/document", SHAPES),
    Request("supermemory", "get", "GET", "*/document/*", SHAPES),
    Request("supermemory", "search", "POST", "*/search", SHAPES),
    Request("supermemory", "list", "POST", "*/list/*", SHAPES),
    Request("supermemory", "update", "PATCH", "*/document/*", SHAPES),
    Request("supermemory", "delete", "DELETE", "*/document", (*SHAPES, {"count": 3, "errors": []})),
    Request("supermemory", "delete_all", "DELETE", "/ns/*", SHAPES),
)


def of(call: str) -> list[Request]:
    return [one for one in REQUESTS if one.call == call]


@pytest.fixture
def hosted(request: pytest.FixtureRequest) -> Hosted:
    (found,) = [one for one in HOSTED if one.name == request.node.callspec.params["asked"].vendor]
    return found


@pytest.mark.parametrize("asked", REQUESTS, ids=str)
async def test_an_answer_of_another_kind_is_a_typed_error(memory: AsyncMemory, emulator: Any, asked: Request) -> None:
    emulator.lag = 60.0  # what is not processed yet is asked for
    record = await memory.add("tea", user_id="ann")
    faults: list[tuple[Fault, type[errors.OpenProtoError]]] = [
        (Status(503), errors.ProviderUnavailableError),
        (CloseConnection(applied=False), errors.ProviderUnavailableError),
        (CloseConnection(applied=False, mid_body=True), errors.ProviderUnavailableError),
        (ResetConnection(applied=False), errors.ProviderUnavailableError),
    ]
    if asked.wrong is not None:
        faults += [(Status(200, body), errors.ProviderError) for body in asked.wrong]
        faults += [(Status(200, b"\xff\xfe"), errors.ProviderError), (HtmlWith200(), errors.ProviderError)]
    for fault, expected in faults:
        always = emulator.faults.always(fault, method=asked.method, path=asked.path)
        with always, pytest.raises(errors.OpenProtoError) as caught:
            await CALLS[asked.call](memory, record.id)
        assert type(caught.value) is expected, fault
        assert SECRET not in str(caught.value)
    assert (await memory.get(record.id)).content == "tea"
    if asked.wrong is not None:
        with emulator.faults.always(TruncatedJson(), path=asked.path), pytest.raises(errors.ProviderError):
            await CALLS[asked.call](memory, record.id)


@pytest.mark.parametrize("owner", ["ann", "bob"])
@pytest.mark.parametrize("asked", of("get"), ids=str)
async def test_anothers_answer_is_not_shown(
    memory: AsyncMemory, emulator: Any, asked: Request, owner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of another record to a call for one by its id, and of another user to every read."""
    ours, theirs = await memory.add("tea", user_id="ann"), await memory.add(SECRET, user_id=owner)
    await memory.wait_for_ingest([theirs.id], owner)
    reads: list[Callable[[str, str], Awaitable[object]]] = [lambda of, user: memory.get(of, user_id=user)]
    if owner != "ann":
        reads += [lambda of, user: memory.list(user), lambda of, user: memory.search(SECRET, user)]
    respond, answers = emulator.respond, list[Any]()
    for read in reads:
        monkeypatch.setattr(emulator, "respond", lambda request: answers.append(respond(request)) or answers[-1])
        assert SECRET.encode() in to_json(await read(theirs.id, owner))  # what repr does not show
        monkeypatch.setattr(emulator, "respond", lambda request: answers.pop(0) if answers else respond(request))
        try:
            shown = to_json(await read(ours.id, "ann"))
        except errors.OpenProtoError as error:
            shown = str(error).encode()
        assert SECRET.encode() not in shown
        answers.clear()


@pytest.mark.parametrize("asked", of("search"), ids=str)
async def test_silence_is_a_timeout(
    hosted: Hosted, emulator: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: Request
) -> None:
    options = {} if hosted.timeout else {"timeout": 0.3}
    if hosted.timeout:
        monkeypatch.setattr(hosted.timeout, 0.3)
    async with AsyncMemory(hosted.make(emulator, tmp_path, **options), retries=0, timeout=None) as memory:
        await memory.add("tea", user_id="ann")
        # mem0's client has one error for all that goes wrong on the way.
        expected = errors.ProviderUnavailableError if hosted.name == "mem0" else errors.ProviderTimeoutError
        with emulator.faults.always(Hang(), path=asked.path), pytest.raises(expected):
            await memory.search(SECRET, "ann")
        assert await memory.search("tea", "bob") == []


@pytest.mark.parametrize("asked", of("get"), ids=str)
async def test_an_id_that_was_never_made_here_is_unknown(memory: AsyncMemory, emulator: Any, asked: Request) -> None:
    record = await memory.add("tea", user_id="ann")
    before = emulator.counters.requests
    for id in (
        *("x", "7", "*", "..", "../x", "%2e%2e", "A" * 36, "00000000"),
        *(f"../{record.id}", f"{record.id}/", f"{record.id}?x=1", f"{record.id}#", f"{record.id}\n"),
        *(f"{record.id[:-1]}ü", f"{record.id[:-1]}٣", record.id[22:], record.id[:22], f" {record.id[1:]}"),
        *((record.id.replace(".", "./../"), record.id.replace(".", "")) if "." in record.id else ()),
    ):
        for call in (memory.get(id), memory.update(id, content="x"), memory.delete(id)):
            with pytest.raises(errors.NotFoundError):
                await call
    assert emulator.counters.requests == before


@pytest.mark.parametrize("pause", [0.0, 0.02])
@pytest.mark.parametrize("asked", of("get"), ids=str)
async def test_a_repeated_answer_ends_its_connection(
    hosted: Hosted, emulator: Any, asked: Request, pause: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    emulator.lag, refused, repeated, say = 0.0, 0, threading.Event(), Connection._say

    async def say_twice(self: Connection, data: bytes) -> None:
        await say(self, data if pause else data * 2)
        await asyncio.sleep(0.02)
        try:
            await say(self, data if pause else b"")
        finally:
            repeated.set()

    async with AsyncMemory(hosted.name, retries=0, **emulator.provider_options()) as memory:
        added = [await memory.add(f"note number {n}", user_id="ann") for n in range(4)]
        records = [await memory.get(record.id) for record in added]
        before = emulator.counters.opened
        with monkeypatch.context() as patched:
            patched.setattr(Connection, "_say", say_twice)
            for record in records * 3:
                repeated.clear()
                try:
                    assert (await memory.get(record.id, user_id="ann")).content == record.content
                except errors.ProviderError:
                    refused += 1
                assert await asyncio.to_thread(repeated.wait, 5)
        # What comes while another request waits cannot be told from its answer, but by what it says.
        assert refused <= (3 if pause else 0)
        assert emulator.counters.opened > before
        assert (await memory.get(records[0].id)).content == records[0].content
