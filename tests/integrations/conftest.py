"""What the tests of the integrations share: a memory in a file, and its twin for programs that do not await."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from openproto import AsyncMemory, Memory


@pytest.fixture
async def memory(tmp_path: Path) -> AsyncIterator[AsyncMemory]:
    async with AsyncMemory("sqlite", path=tmp_path / "memory.db", embedder=None) as memory:
        yield memory


@pytest.fixture
def blocking(tmp_path: Path) -> Iterator[Memory]:
    with Memory("sqlite", path=tmp_path / "memory.db", embedder=None) as memory:
        yield memory
