"""The vendors that are reached over HTTP, and in what they differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from openproto_adapters.letta import Letta
from openproto_adapters.mem0 import Mem0
from openproto_adapters.memorysync import MemorySync
from openproto_adapters.memsy import Memsy
from openproto_adapters.supermemory import Supermemory
from openproto_conformance.emulators import Emulator
from openproto_conformance.emulators.letta import Letta as LettaEmulator
from openproto_conformance.emulators.mem0 import Mem0Platform as Mem0Emulator
from openproto_conformance.emulators.memorysync import MemorySync as MemorySyncEmulator
from openproto_conformance.emulators.memsy import Memsy as MemsyEmulator
from openproto_conformance.emulators.supermemory import Supermemory as SupermemoryEmulator

from openproto import (
    AsyncMemory,
    ConflictError,
    InvalidRequestError,
    OpenProtoError,
    PayloadTooLargeError,
    Provider,
    ProviderError,
    ProviderUnavailableError,
    RateLimitedError,
    ScopeDeniedError,
    UnauthorizedError,
)

STATUSES: Mapping[int, type[OpenProtoError]] = {
    400: InvalidRequestError,
    401: UnauthorizedError,
    402: RateLimitedError,
    403: ScopeDeniedError,
    409: ConflictError,
    413: PayloadTooLargeError,
    418: ProviderError,
    422: InvalidRequestError,
    429: RateLimitedError,
    500: ProviderError,
    502: ProviderUnavailableError,
    503: ProviderUnavailableError,
    504: ProviderUnavailableError,
}
"""What a status means at every vendor that does not say otherwise."""


@dataclass(frozen=True)
class Hosted:
    """One vendor: its provider, its emulator, and what tests have to know of the two."""

    provider: type[Provider]
    emulator: type[Emulator]
    sdk: str
    """The package that the SDK is imported as."""
    adds: str
    """The route that every `add` asks for."""
    search: str
    """A pattern for the path that every search asks for."""
    width: str = "width"
    """The option that bounds how many calls are under way."""
    key_variable: str = ""
    """The environment variable with the key, where one is needed."""
    url_variable: str = ""
    """The environment variable with the address, where there is one."""
    says_when_to_return: bool = True
    """Whether its SDK passes on the Retry-After of a 429."""
    statuses: Mapping[int, type[OpenProtoError]] = field(default_factory=dict)
    """What a status means at this vendor, where that is something else."""

    @property
    def name(self) -> str:
        """The provider's name."""
        return self.provider.name

    def make(self, emulator: Emulator, folder: Path, **options: Any) -> Provider:
        """Return a provider for the running emulator that has every verb but `audit`."""
        beside = {"path": folder / "records.db"} if emulator.beside_a_file else {}
        return self.provider(**{**emulator.provider_options(), **beside, **options})

    def client(self, emulator: Emulator, folder: Path, *, retries: int = 0, **options: Any) -> AsyncMemory:
        """Return a client of such a provider that retries nothing."""
        bounds = {name: options.pop(name) for name in ("timeout", "close_timeout") if name in options}
        return AsyncMemory(self.make(emulator, folder, **options), retries=retries, **bounds)


HOSTED = (
    Hosted(
        Letta,
        LettaEmulator,
        sdk="letta_client",
        adds="POST /v1/archives/{archive_id}/passages",
        search="/v1/passages/search",
        url_variable="LETTA_BASE_URL",
        statuses={500: ProviderUnavailableError},
    ),
    Hosted(
        Mem0,
        Mem0Emulator,
        sdk="mem0",
        adds="POST /v3/memories/add/",
        search="/v3/memories/search/",
        key_variable="MEM0_API_KEY",
        statuses={402: ProviderError, 409: InvalidRequestError, 413: RateLimitedError},
    ),
    Hosted(
        MemorySync,
        MemorySyncEmulator,
        sdk="memorysync",
        adds="POST /memory/bulk-add",
        search="/memory/query",
        width="max_connections",
        key_variable="MEMORYSYNC_API_KEY",
        url_variable="MEMORYSYNC_BASE_URL",
    ),
    Hosted(
        Memsy,
        MemsyEmulator,
        sdk="memsy",
        adds="POST /v1/ingest",
        search="/v1/search",
        key_variable="MEMSY_API_KEY",
        url_variable="MEMSY_BASE_URL",
        says_when_to_return=False,
        statuses={409: ScopeDeniedError},
    ),
    Hosted(
        Supermemory,
        SupermemoryEmulator,
        sdk="supermemory",
        adds="POST /ns/{namespace}/document",
        search="/ns/*/search",
        key_variable="SUPERMEMORY_API_KEY",
        url_variable="SUPERMEMORY_BASE_URL",
    ),
)

BY_NAME = {hosted.name: hosted for hosted in HOSTED}
