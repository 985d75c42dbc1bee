"""The suite on the memorysync provider, over its emulator, with the audit journal: MemorySync logs no reads."""

from __future__ import annotations

import atexit
import tempfile
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path

import pytest
from openproto_adapters.memorysync import MemorySync
from openproto_conformance import ProviderSuite
from openproto_conformance.emulators.memorysync import MemorySync as Emulator

from openproto import Provider
from openproto.layers.audit import Audited

IN_MEMORY = Path("/dev/shm")


@cache
def emulator() -> Emulator:
    """Return an emulator that runs as long as the tests."""
    running = Emulator().start()
    atexit.register(running.stop)
    return running


@cache
def journal() -> str:
    """Return the URL of a journal that lasts as long; in memory where there is such a place, for its fsyncs."""
    folder = tempfile.TemporaryDirectory(prefix="openproto-ms-", dir=IN_MEMORY if IN_MEMORY.is_dir() else None)
    atexit.register(folder.cleanup)
    return f"sqlite:///{Path(folder.name) / 'audit.db'}"


@pytest.mark.promise(77)
@pytest.mark.promise(85)
class TestMemorySync(ProviderSuite):
    secrets = (Emulator.api_key,)
    quick = True

    def provider(self) -> Provider:
        return self.pooled(32)

    def pooled(self, size: int) -> Provider:
        return Audited(MemorySync(**emulator().provider_options(), max_connections=size), journal())

    def stalled(self) -> AbstractContextManager[object]:
        return emulator().stalled()

    def unreachable(self) -> Provider:
        return MemorySync(base_url="http://127.0.0.1:1", api_key=Emulator.api_key)


def test_no_answer_was_a_bug_of_the_emulator() -> None:
    assert emulator().violations == []
    assert emulator().purges == 0
