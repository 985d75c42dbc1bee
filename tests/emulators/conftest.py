"""Emulators that run, and the vendors' documents where they can be had."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from notes_emulator import Notes, document
from openproto_conformance.emulators import Emulator
from openproto_conformance.emulators.document import VARIABLE


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
def http() -> Iterator[Callable[[Emulator], httpx.Client]]:
    clients: list[httpx.Client] = []

    def client(emulator: Emulator) -> httpx.Client:
        headers = {"authorization": f"Bearer {emulator.api_key}"}
        clients.append(httpx.Client(base_url=emulator.url, headers=headers, timeout=5.0, trust_env=False))
        return clients[-1]

    yield client
    for made in clients:
        made.close()
