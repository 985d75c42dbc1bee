"""Each hosted vendor in turn: its emulator for one test, and clients of it; folders of one vendor choose theirs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hosted import HOSTED, Hosted

from openproto import AsyncMemory

CERTIFICATE = Path(__file__).parents[1] / "passthrough" / "localhost.pem"


@pytest.fixture(autouse=True)
def _one_authority_to_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each client read one certificate: all authorities take an SDK a tenth of a second, and none is used."""
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))


@pytest.fixture(params=HOSTED, ids=lambda hosted: hosted.name)
def hosted(request: pytest.FixtureRequest) -> Hosted:
    """The vendor."""
    found: Hosted = request.param
    return found


@pytest.fixture
def emulator(hosted: Hosted) -> Iterator[Any]:
    """The vendor, running; at the end of the test it has kept to its document, and no account was erased."""
    with hosted.emulator() as running:
        yield running
        assert running.violations == []
        assert getattr(running, "purges", 0) == 0


@pytest.fixture
async def memory(hosted: Hosted, emulator: Any, tmp_path: Path) -> AsyncIterator[AsyncMemory]:
    """An open client that retries nothing."""
    async with hosted.client(emulator, tmp_path) as client:
        yield client


@pytest.fixture
async def other(hosted: Hosted, emulator: Any, tmp_path: Path) -> AsyncIterator[AsyncMemory]:
    """A client of another process, as far as anybody can see: it remembers nothing of the first one's."""
    async with hosted.client(emulator, tmp_path) as client:
        yield client
