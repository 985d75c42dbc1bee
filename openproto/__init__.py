"""One verb interface over every AI-memory backend: `AsyncMemory`, and `Memory` for code without an event loop."""

from typing import Any as _Any

from openproto.client.async_memory import AsyncMemory
from openproto.client.memory import Memory
from openproto.context import TokenCounter
from openproto.errors import (
    ConflictError,
    IngestionTimeoutError,
    InternalError,
    InvalidRequestError,
    NotFoundError,
    OpenProtoError,
    PayloadTooLargeError,
    ProviderError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    RateLimitedError,
    ScopeDeniedError,
    UnauthorizedError,
    UnknownProviderError,
    UnsupportedCapabilityError,
)
from openproto.fanout import gather_bounded
from openproto.models import (
    AuditEntry,
    Capabilities,
    ContextBlock,
    MemoryPage,
    MemoryRecord,
    MemorySource,
    SearchResult,
)
from openproto.provider import Provider
from openproto.requests import MemoryChanges, MemoryInput

__version__: str

__all__ = [
    "AsyncMemory",
    "AuditEntry",
    "Capabilities",
    "ConflictError",
    "ContextBlock",
    "IngestionTimeoutError",
    "InternalError",
    "InvalidRequestError",
    "Memory",
    "MemoryChanges",
    "MemoryInput",
    "MemoryPage",
    "MemoryRecord",
    "MemorySource",
    "NotFoundError",
    "OpenProtoError",
    "PayloadTooLargeError",
    "Provider",
    "ProviderError",
    "ProviderTimeoutError",
    "ProviderUnavailableError",
    "RateLimitedError",
    "ScopeDeniedError",
    "SearchResult",
    "TokenCounter",
    "UnauthorizedError",
    "UnknownProviderError",
    "UnsupportedCapabilityError",
    "__version__",
    "gather_bounded",
]


def __getattr__(name: str) -> _Any:
    if name == "__version__":
        # Looked up when it is asked for: finding it takes longer than the rest of this package.
        from importlib.metadata import version

        return version("openproto")
    raise AttributeError(f"module 'openproto' has no attribute {name!r}")
