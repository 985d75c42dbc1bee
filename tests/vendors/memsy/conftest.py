"""An emulator for each test, clients on it with and without a file, and Memsy's own SDK beside them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from hosted import BY_NAME, Hosted
from memsy import AsyncMemsyClient
from openproto_adapters.memsy import Memsy
from openproto_conformance.emulators.memsy import Memsy as Emulator

from openproto import AsyncMemory


@pytest.fixture
def hosted() -> Hosted:
    """The vendor of this folder."""
    return BY_NAME["memsy"]


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    """Memsy, running; at the end of the test it has broken nowhere."""
    with Emulator(lag=0.01) as running:
        yield running
        assert running.violations == []


@pytest.fixture
async def raw(emulator: Emulator) -> AsyncIterator[AsyncMemsyClient]:
    """Memsy's SDK as another program would use it."""
    async with AsyncMemsyClient(f"{emulator.url}/v1", emulator.api_key, max_retries=0) as client:
        yield client


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the records are kept."""
    return tmp_path / "records.db"


@pytest.fixture
async def plain(emulator: Emulator) -> AsyncIterator[AsyncMemory]:
    """An open client without a file, which retries nothing."""
    async with AsyncMemory(Memsy(**emulator.provider_options()), retries=0) as client:
        yield client


@pytest.fixture
async def other(emulator: Emulator) -> AsyncIterator[AsyncMemory]:
    """Another client without a file, which knows nothing of what the first one sent."""
    async with AsyncMemory(Memsy(**emulator.provider_options()), retries=0) as client:
        yield client
