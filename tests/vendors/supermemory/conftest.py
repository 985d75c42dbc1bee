"""An emulator for each test, clients on it, and Supermemory's own SDK beside them."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Any

import httpx
import pytest
from hosted import BY_NAME, Hosted
from openproto_adapters.supermemory import memories
from openproto_conformance.emulators.supermemory import Supermemory as Emulator

from openproto.emulation import Recent


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    """Supermemory, running; at the end of the test it has kept to its document."""
    with Emulator(lag=0.01) as running:
        yield running
        assert running.violations == []


@pytest.fixture
def raw(emulator: Emulator) -> Iterator[Any]:
    """Supermemory's SDK as another program would use it."""
    with httpx.Client(trust_env=False, timeout=10.0) as http:
        sdk = import_module("supermemory")
        yield sdk.Supermemory(base_url=emulator.url, api_key=emulator.api_key, http_client=http, max_retries=0)


@pytest.fixture
def hosted() -> Hosted:
    """The vendor of this folder."""
    return BY_NAME["supermemory"]


@pytest.fixture
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process remember none of its writes, as if another one had made them."""
    monkeypatch.setattr(memories, "_recent", Recent(0))
