"""The suite on Supermemory's emulator, with the audit journal: Supermemory keeps no log of who did what."""

from __future__ import annotations

import atexit
import contextlib
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from openproto_adapters.supermemory import Supermemory
from openproto_conformance import ProviderSuite
from openproto_conformance.emulators.supermemory import Supermemory as Emulator

from openproto import Provider
from openproto.layers.audit import Audited


@cache
def emulator() -> Emulator:
    """Return an emulator that lasts as long as the test run."""
    started = Emulator().start()
    atexit.register(started.stop)
    return started


@cache
def journal() -> str:
    """Return the URL of a journal that lasts as long as the test run."""
    folder = tempfile.TemporaryDirectory(prefix="openproto-supermemory-")
    atexit.register(folder.cleanup)
    return f"sqlite:///{Path(folder.name)}/audit.db"


@pytest.fixture(scope="module", autouse=True)
def _the_emulator_kept_to_the_document() -> Iterator[None]:
    yield
    assert emulator().violations == [], emulator().violations[:3]


@pytest.mark.promise(77)
@pytest.mark.promise(85)
class TestSupermemory(ProviderSuite):
    quick = True
    secrets = (Emulator.api_key,)

    def provider(self) -> Provider:
        return Audited(Supermemory(**emulator().provider_options()), journal())

    def stalled(self) -> contextlib.AbstractContextManager[object]:
        return emulator().stalled()

    def unreachable(self) -> Provider:
        return Supermemory(base_url="http://127.0.0.1:9", api_key=Emulator.api_key)
