"""An emulator for each test, a client on it, and Letta's own SDK beside it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import httpx
import letta_client as sdk
import pytest
from openproto_adapters.letta import Letta
from openproto_conformance.emulators.letta import Letta as Emulator

from openproto import AsyncMemory


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    """Letta, running; at the end of the test it has kept to its document."""
    with Emulator() as running:
        yield running
        assert running.violations == []


@pytest.fixture
def raw(emulator: Emulator) -> Iterator[sdk.Letta]:
    """Letta's SDK as another program would use it."""
    with httpx.Client(trust_env=False, timeout=10.0) as http:
        yield sdk.Letta(base_url=emulator.url, api_key=emulator.api_key, http_client=http, max_retries=0)


@pytest.fixture
async def memory(emulator: Emulator) -> AsyncIterator[AsyncMemory]:
    """An open client that retries nothing."""
    async with AsyncMemory(Letta(**emulator.provider_options()), retries=0) as client:
        yield client


@pytest.fixture
async def other(emulator: Emulator) -> AsyncIterator[AsyncMemory]:
    """A client of another process, as far as anybody can tell: it remembers nothing of the first one's."""
    async with AsyncMemory(Letta(**emulator.provider_options()), retries=0) as client:
        yield client
