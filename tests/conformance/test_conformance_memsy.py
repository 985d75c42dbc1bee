"""The suite on Memsy's emulator: with a file for the records and the audit journal, and with Memsy alone."""

from __future__ import annotations

import atexit
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path
from typing import ClassVar

import pytest
from openproto_adapters.memsy import Memsy
from openproto_conformance import ProviderSuite
from openproto_conformance.emulators.memsy import Memsy as Emulator

from openproto import Provider
from openproto.layers.audit import Audited

IN_MEMORY = Path("/dev/shm")
CERTIFICATE = Path(__file__).parents[1] / "passthrough" / "localhost.pem"


@cache
def emulator() -> Emulator:
    """Return an emulator that lasts as long as the test run."""
    started = Emulator().start()
    atexit.register(started.stop)
    return started


@cache
def folder() -> Path:
    """Return a folder that lasts as long as the test run; in memory where there is such a place, for its fsyncs."""
    made = tempfile.TemporaryDirectory(prefix="openproto-memsy-", dir=IN_MEMORY if IN_MEMORY.is_dir() else None)
    atexit.register(made.cleanup)
    return Path(made.name)


@pytest.fixture(scope="module", autouse=True)
def _one_authority_to_read() -> Iterator[None]:
    """Let each client read one certificate: all authorities take the SDK a tenth of a second, and none is used."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
        yield


@pytest.mark.promise(77)
@pytest.mark.promise(85)
class TestMemsy(ProviderSuite):
    quick = True
    secrets = (Emulator.api_key,)

    def provider(self) -> Provider:
        return self.pooled(16)

    def pooled(self, size: int) -> Provider:
        file = folder() / "memsy.db"
        return Audited(Memsy(**emulator().provider_options(), path=file, width=size), f"sqlite:///{file}")

    def stalled(self) -> AbstractContextManager[object]:
        return emulator().stalled()

    def unreachable(self) -> Provider:
        return Memsy("http://127.0.0.1:9/v1", api_key=Emulator.api_key)


class TestMemsyAlone(ProviderSuite):
    quick = True
    secrets = (Emulator.api_key,)
    deviations: ClassVar[Mapping[str, str]] = {
        "the_least_is_there": "Memsy deletes nothing on request; with path= openproto does",
        "expired_records_take_no_place": "a search shows 100 at most, and Memsy's listing does not say what is valid",
    }

    def provider(self) -> Provider:
        return self.pooled(16)

    def pooled(self, size: int) -> Provider:
        return Memsy(**emulator().provider_options(), width=size)

    def stalled(self) -> AbstractContextManager[object]:
        return emulator().stalled()

    def unreachable(self) -> Provider:
        return Memsy("http://127.0.0.1:9/v1", api_key=Emulator.api_key)


def test_no_answer_of_the_emulator_was_a_bug_of_its_own() -> None:
    assert emulator().violations == []
