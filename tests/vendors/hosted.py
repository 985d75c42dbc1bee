"""The vendors that are reached over HTTP, and in what they differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from openproto_conformance.emulators import Emulator
from openproto_conformance.emulators.registry import emulator_class

from openproto import AsyncMemory, Provider, errors
from openproto.registry import provider_class

STATUSES: Mapping[int, type[errors.OpenProtoError]] = {
    400: errors.InvalidRequestError,
    401: errors.UnauthorizedError,
    402: errors.RateLimitedError,
    403: errors.ScopeDeniedError,
    409: errors.ConflictError,
    413: errors.PayloadTooLargeError,
    418: errors.ProviderError,
    422: errors.InvalidRequestError,
    429: errors.RateLimitedError,
    500: errors.ProviderError,
    502: errors.ProviderUnavailableError,
    503: errors.ProviderUnavailableError,
    504: errors.ProviderUnavailableError,
}
"""What a status means at every vendor that does not say otherwise."""


@dataclass(frozen=True)
class Hosted:
    """One vendor: its provider, its emulator, and what tests have to know of the two."""

    name: str
    adds: str  # the route that every `add` asks for
    search: str  # a pattern for the path that every search asks for
    lag: float = 0.03  # how many seconds its emulator takes to process what it has accepted
    width: str = "width"  # the option that bounds how many calls are under way
    needs_key: bool = True
    has_url_variable: bool = True  # whether an environment variable may have the address
    says_when_to_return: bool = True  # whether its SDK passes on the Retry-After of a 429
    timeout: str = ""  # where the adapter says how long it waits for a byte, unless that is an option
    processes_later: bool = False  # whether a memory is queued or indexed at first
    wait: Any = None  # the value of `wait=` with which a write is processed when it returns, where there is one
    batch: tuple[str, int, int] = ("", 0, 0)
    """The route of a batch, and how many requests 60 memories of one user and 60 of another are."""
    statuses: Mapping[int, type[errors.OpenProtoError]] = field(default_factory=dict)
    """What a status means at this vendor, where that is something else."""

    @property
    def variables(self) -> dict[str, str]:
        """The environment variables with the address and the key, where there are such, and the options they are."""
        url, key = f"{self.name.upper()}_BASE_URL", f"{self.name.upper()}_API_KEY"
        return {**({url: "base_url"} if self.has_url_variable else {}), **({key: "api_key"} if self.needs_key else {})}

    @property
    def provider(self) -> type[Provider]:
        return provider_class(self.name)

    @property
    def emulator(self) -> type[Emulator]:
        return emulator_class(self.name)

    def make(self, emulator: Emulator, folder: Path, **options: Any) -> Provider:
        """Return a provider for the running emulator that has every verb but `audit`."""
        beside = {"path": folder / "records.db"} if emulator.beside_a_file else {}
        return self.provider(**{**emulator.provider_options(), **beside, **options})

    def client(self, emulator: Emulator, folder: Path, *, retries: int = 0, **options: Any) -> AsyncMemory:
        bounds = {name: options.pop(name) for name in ("timeout", "close_timeout") if name in options}
        return AsyncMemory(self.make(emulator, folder, **options), retries=retries, **bounds)


HOSTED = (
    Hosted(
        "letta",
        adds="POST /v1/archives/{archive_id}/passages",
        search="/v1/passages/search",
        needs_key=False,
        timeout="openproto_adapters.letta.provider.TIMEOUT",
        batch=("POST /v1/archives/{archive_id}/passages/batch", 6, 6),
        statuses={500: errors.ProviderUnavailableError},
    ),
    Hosted(
        "mem0",
        adds="POST /v3/memories/add/",
        search="/v3/memories/search/",
        has_url_variable=False,
        timeout="openproto_adapters.mem0.platform._REQUEST_TIMEOUT",
        processes_later=True,
        statuses={402: errors.ProviderError, 409: errors.InvalidRequestError, 413: errors.RateLimitedError},
    ),
    Hosted(
        "memorysync",
        adds="POST /memory/bulk-add",
        search="/memory/query",
        width="max_connections",
        batch=("POST /memory/bulk-add", 2, 2),
    ),
    Hosted(
        "memsy",
        adds="POST /v1/ingest",
        search="/v1/search",
        lag=0.01,
        timeout="openproto_adapters.memsy.provider.TIMEOUT",
        processes_later=True,
        wait=10.0,
        batch=("POST /v1/ingest", 1, 1),
        says_when_to_return=False,
        statuses={409: errors.ScopeDeniedError},
    ),
    Hosted(
        "supermemory",
        adds="POST /ns/{namespace}/document",
        search="/ns/*/search",
        lag=0.01,
        timeout="openproto_adapters.supermemory.provider.TIMEOUT",
        processes_later=True,
        wait="indexed",
        batch=("POST /ns/{namespace}/document/batch", 1, 1),
    ),
)
