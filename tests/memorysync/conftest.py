"""An emulator for each test, a client on it, and MemorySync's own SDK beside it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import TypeAlias

import pytest
from memorysync import MemorySyncClient
from openproto_adapters.memorysync import MemorySync
from openproto_adapters.memorysync.ids import end_user
from openproto_conformance.emulators.memorysync import MemorySync as Emulator

from openproto import AsyncMemory
from openproto.emulation import user_token

Sdk: TypeAlias = Callable[[str], MemorySyncClient]


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    """MemorySync, running; whatever a test does, nobody has asked to erase the account."""
    with Emulator() as running:
        yield running
        assert running.violations == []
        assert running.purges == 0


@pytest.fixture
def sdk(emulator: Emulator) -> Iterator[Sdk]:
    """MemorySync's SDK as another program would use it, for a user of ours."""
    made: list[MemorySyncClient] = []

    def connect(user_id: str) -> MemorySyncClient:
        made.append(MemorySyncClient(emulator.api_key, emulator.url, end_user_id=end_user(user_token(user_id))))
        return made[-1]

    yield connect
    for client in made:
        client.close()


@pytest.fixture
async def memory(emulator: Emulator) -> AsyncIterator[AsyncMemory]:
    """An open client that retries nothing."""
    async with AsyncMemory(MemorySync(**emulator.provider_options()), retries=0) as client:
        yield client


@pytest.fixture
async def other(emulator: Emulator) -> AsyncIterator[AsyncMemory]:
    """A client of another process, as far as anybody can tell: it remembers nothing of the first one's."""
    async with AsyncMemory(MemorySync(**emulator.provider_options()), retries=0) as client:
        yield client
