"""The suite on both kinds of mem0, each with the audit journal: mem0's own history knows neither users nor reads."""

from __future__ import annotations

import atexit
import contextlib
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cache, cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray
from openproto_adapters.mem0 import Mem0
from openproto_adapters.mem0.importing import import_mem0
from openproto_conformance import ProviderSuite
from openproto_conformance.emulators.mem0 import Mem0Platform as Emulated

from openproto import Provider
from openproto.embedding import LocalEmbedder
from openproto.layers.audit import Audited

IN_MEMORY = Path("/dev/shm")


@cache
def folder() -> Path:
    """Return a folder that lasts as long as the test run; in memory where there is such a place, for its fsyncs."""
    import_mem0()  # takes seconds, on a busy machine more than a client may take to open
    made = tempfile.TemporaryDirectory(prefix="openproto-mem0-", dir=IN_MEMORY if IN_MEMORY.is_dir() else None)
    atexit.register(made.cleanup)
    return Path(made.name)


@cache
def emulator() -> Emulated:
    """Start the platform, to be stopped when the tests end."""
    started = Emulated().start()
    atexit.register(started.stop)
    return started


class Gated(LocalEmbedder):
    """The local embedder, held up while the gate is shut."""

    def __init__(self, gate: threading.Event) -> None:
        self._gate = gate

    def embed(self, texts: Sequence[str]) -> list[NDArray[np.float32]]:
        self._gate.wait()
        return super().embed(texts)


@pytest.mark.promise(77)
@pytest.mark.promise(85)
class TestMem0Library(ProviderSuite):
    quick = True
    deviations: ClassVar[Mapping[str, str]] = {
        "a_forked_child_has_a_backend_of_its_own": "mem0's local store serves one process at a time",
    }

    @cached_property
    def here(self) -> Path:
        """A folder for each case: a search goes through the memories of all users, whosever they are."""
        return Path(tempfile.mkdtemp(dir=folder()))

    @cached_property
    def gate(self) -> threading.Event:
        """Set while the embedder answers."""
        gate = threading.Event()
        gate.set()
        return gate

    def provider(self) -> Provider:
        return Audited(Mem0(self.here / "store", embedder=Gated(self.gate)), f"sqlite:///{self.here}/audit.db")

    @contextlib.contextmanager
    def stalled(self) -> Iterator[None]:
        """Hold up the embedder; what waits for the store itself is tried in tests/mem0."""
        self.gate.clear()
        try:
            yield
        finally:
            self.gate.set()

    def unreachable(self) -> Provider:
        return Mem0("/dev/null/store")


@pytest.mark.promise(77)
@pytest.mark.promise(85)
class TestMem0Platform(ProviderSuite):
    quick = True
    secrets = (Emulated.api_key, "correct-horse")

    @cached_property
    def here(self) -> Path:
        """A folder for each case, and an empty platform: a search goes through the memories of all users."""
        emulator().clear()
        return Path(tempfile.mkdtemp(dir=folder()))

    def provider(self) -> Provider:
        return Audited(Mem0(**emulator().provider_options()), f"sqlite:///{self.here}/audit.db")

    def stalled(self) -> AbstractContextManager[object]:
        return emulator().stalled()

    def unreachable(self) -> Provider:
        return Mem0(base_url="http://127.0.0.1:1", api_key="correct-horse")
