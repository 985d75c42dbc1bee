"""The suite on the adapters of vendors, over their emulators or engines, most with the audit journal.

What they all inherit is proven by the suite on dictionaries in tests/emulation; every day the areas are tried that an
adapter's own code decides.
"""

from __future__ import annotations

import contextlib
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar
from uuid import uuid4

import lasting
import numpy as np
import psycopg
import pytest
from numpy.typing import NDArray
from openproto_adapters.mem0 import Mem0
from openproto_adapters.mem0.quiet_import import import_mem0
from openproto_adapters.memori import Memori
from openproto_conformance import ProviderSuite

from openproto import Provider
from openproto.embedding import LocalEmbedder
from openproto.layers.audit import Audited
from openproto.registry import make_provider

CERTIFICATE = Path(__file__).parents[1] / "passthrough" / "localhost.pem"

pytestmark = pytest.mark.everyday(
    *("cancellation", "errors", "idempotency", "ingestion", "isolation"),
    *("histories_of_searches", "histories_of_users", "ingestion_is_as_declared"),
    faces=("async",),
)


@pytest.fixture(scope="module", autouse=True)
def _one_authority_to_read() -> Iterator[None]:
    """Let each client read one certificate: all authorities take an SDK a tenth of a second, and none is used."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
        yield


@pytest.fixture(scope="class", autouse=True)
def _emulators_keep_to_their_documents(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    kind = getattr(request.cls, "kind", None)
    if kind is not None:
        emulator = lasting.emulator(kind)
        assert emulator.violations == []
        assert getattr(emulator, "purges", 0) == 0  # whole accounts, which MemorySync's API deletes too


class VendorSuite(ProviderSuite):
    """A provider over an emulator, with an audit journal for each case."""

    quick = True
    kind: ClassVar[str]
    width: ClassVar[tuple[str, int]] = ("width", 8)
    """The option that says how many connections there are, and how many there are without `pooled`."""

    @property
    def emulator(self) -> Any:
        return lasting.emulator(self.kind)

    @cached_property
    def journal(self) -> str:
        return f"sqlite:///{lasting.folder(type(self).__name__)}/{uuid4().hex}.db"

    def provider(self) -> Provider:
        return self.pooled(self.width[1])

    def pooled(self, size: int) -> Provider:
        return Audited(self.alone(size), self.journal)

    def alone(self, size: int, **options: Any) -> Provider:
        return make_provider(self.kind, {**self.emulator.provider_options(), self.width[0]: size, **options})

    def stalled(self) -> AbstractContextManager[object] | None:
        return self.emulator.stalled()  # type: ignore[no-any-return]


class TestLetta(VendorSuite):
    kind = "letta"


class TestSupermemory(VendorSuite):
    kind = "supermemory"


class TestMemorySync(VendorSuite):
    kind = "memorysync"
    width = ("max_connections", 32)


class TestMemsy(VendorSuite):
    """With a file for the records and the audit journal."""

    kind = "memsy"
    width = ("width", 16)

    def pooled(self, size: int) -> Provider:
        file = lasting.folder("memsy") / "memsy.db"
        return Audited(self.alone(size, path=file), f"sqlite:///{file}")


@pytest.mark.everyday("errors", "isolation", faces=("async",))  # it is cancelled as with a file
class TestMemsyAlone(TestMemsy):
    deviations: ClassVar[Mapping[str, str]] = {
        "the_least_is_there": "Memsy deletes nothing on request; with path= openproto does",
        "expired_records_take_no_place": "a search shows 100 at most, and Memsy's listing does not say what is valid",
    }

    def pooled(self, size: int) -> Provider:
        return self.alone(size)


class GatedEmbedder(LocalEmbedder):
    """The local embedder, held up while the gate is shut."""

    def __init__(self, gate: threading.Event) -> None:
        self._gate = gate

    def embed(self, texts: Sequence[str]) -> list[NDArray[np.float32]]:
        self._gate.wait()
        return super().embed(texts)


class TestMem0Library(ProviderSuite):
    quick = True
    deviations: ClassVar[Mapping[str, str]] = {
        "a_forked_child_has_a_backend_of_its_own": "mem0's local store serves one process at a time"
    }

    @cached_property
    def here(self) -> Path:
        """A folder for each case: a search goes through the memories of all users, whosever they are."""
        return Path(tempfile.mkdtemp(dir=lasting.folder("mem0")))

    @cached_property
    def gate(self) -> threading.Event:
        """Set while the embedder answers."""
        gate = threading.Event()
        gate.set()
        return gate

    def provider(self) -> Provider:
        import_mem0()  # takes seconds, on a busy machine more than a client may take to open
        embedder = GatedEmbedder(self.gate)
        return Audited(Mem0(self.here / "store", embedder=embedder), f"sqlite:///{self.here}/audit.db")

    @contextlib.contextmanager
    def stalled(self) -> Iterator[None]:
        """Hold up the embedder; what waits for the store itself is tried in tests/vendors."""
        self.gate.clear()
        try:
            yield
        finally:
            self.gate.set()


class TestMem0Platform(VendorSuite):
    kind = "mem0"

    @cached_property
    def journal(self) -> str:
        """A journal for each case, and an empty platform: a search goes through the memories of all users."""
        self.emulator.clear()
        return f"sqlite:///{lasting.folder('mem0-platform')}/{uuid4().hex}.db"


@pytest.mark.everyday("basics", "filters", "isolation", "search", faces=("async",))
class TestMem0OnPgvector(ProviderSuite):
    """The areas in which mem0's stores differ."""

    quick = True

    def provider(self) -> Provider:
        store = {"provider": "pgvector", "config": {"connection_string": lasting.postgres_url("mem0")}}
        return Mem0(config={"vector_store": store})


class TestMemoriOnSqlite(VendorSuite):
    """The embedding model is a stand-in made of the local embedder's vectors, since the real one is a download."""

    kind = "memori"


class TestMemoriOnPostgres(VendorSuite):
    kind = "memori"
    secrets = ("correct-horse",)

    @property
    def url(self) -> str:
        return lasting.postgres_url("memori")

    def pooled(self, size: int) -> Provider:
        return Audited(Memori(self.url, models=self.emulator.models, width=size), self.journal)

    @contextlib.contextmanager
    def stalled(self) -> Iterator[None]:
        """Lock the facts against writers."""
        with psycopg.connect(self.url) as other:
            other.execute("LOCK TABLE memori_entity_fact IN SHARE MODE")
            yield

    def unreachable(self) -> Provider:
        return Memori("postgresql://app:correct-horse@127.0.0.1:1/memory", models=self.emulator.models)
