"""The suite on the letta provider, over its emulator, with the audit journal: Letta keeps no log of its own."""

from __future__ import annotations

import atexit
import tempfile
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path

import pytest
from openproto_adapters.letta import Letta
from openproto_conformance import ProviderSuite
from openproto_conformance.emulators import Hang
from openproto_conformance.emulators.letta import Letta as Emulator

from openproto import Provider
from openproto.layers.audit import Audited


@cache
def emulator() -> Emulator:
    """Return an emulator that runs as long as the tests."""
    running = Emulator().start()
    atexit.register(running.stop)
    return running


@cache
def journal() -> str:
    """Return the URL of a journal that lasts as long."""
    folder = tempfile.TemporaryDirectory(prefix="openproto-letta-")
    atexit.register(folder.cleanup)
    return f"sqlite:///{Path(folder.name) / 'audit.db'}"


@pytest.mark.promise(77)
@pytest.mark.promise(85)
class TestLetta(ProviderSuite):
    secrets = (Emulator.api_key,)
    quick = True

    def provider(self) -> Provider:
        return self.pooled(8)

    def pooled(self, size: int) -> Provider:
        return Audited(Letta(**emulator().provider_options(), width=size), journal())

    def stalled(self) -> AbstractContextManager[object]:
        return emulator().faults.always(Hang(), method="POST", path=Emulator.add_path)

    def unreachable(self) -> Provider:
        return Letta(base_url="http://127.0.0.1:1", api_key=Emulator.api_key)


def test_every_answer_was_one_that_the_document_allows() -> None:
    assert emulator().violations == []
