"""Each hosted vendor in turn, its emulator for one test, and clients of it; a place for mem0's store."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import lasting
import pytest
from hosted import HOSTED, Hosted

from openproto import AsyncMemory

CERTIFICATE = Path(__file__).parents[1] / "passthrough" / "localhost.pem"


@pytest.fixture(autouse=True)
def _one_authority_to_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each client read one certificate: all authorities take an SDK a tenth of a second, and none is used."""
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test on each hosted vendor, or on the one that its module is named after."""
    if "hosted" in metafunc.fixturenames and "asked" not in metafunc.fixturenames:
        vendors = [one for one in HOSTED if metafunc.definition.path.stem.startswith(f"test_{one.name}")] or HOSTED
        metafunc.parametrize("hosted", vendors, ids=lambda hosted: hosted.name)


@pytest.fixture
def emulator(hosted: Hosted) -> Iterator[Any]:
    """The vendor, running; at the end of the test it has kept to its document, and no account was erased."""
    with hosted.emulator(lag=hosted.lag) as running:
        yield running
        assert running.violations == []
        assert getattr(running, "purges", 0) == 0


@pytest.fixture
async def memory(hosted: Hosted, emulator: Any, tmp_path: Path) -> AsyncIterator[AsyncMemory]:
    async with hosted.client(emulator, tmp_path) as client:
        yield client


@pytest.fixture
async def other(hosted: Hosted, emulator: Any, tmp_path: Path) -> AsyncIterator[AsyncMemory]:
    """A client of another process, as far as anybody can see: it remembers nothing of the first one's."""
    async with hosted.client(emulator, tmp_path) as client:
        yield client


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder for mem0's store, which waits for the disk with every write: in memory where there is such a place."""
    with tempfile.TemporaryDirectory(dir=lasting.folder("vendors")) as made:
        yield Path(made)
