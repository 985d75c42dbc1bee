"""Every error of the protocol, in one tree.

::

    OpenProtoError
    ├── UnauthorizedError              unauthorized            401
    ├── ScopeDeniedError               scope_denied            403
    ├── NotFoundError                  not_found               404
    ├── InvalidRequestError            invalid_request         400   also a ValueError
    ├── UnsupportedCapabilityError     unsupported_capability  400
    ├── ConflictError                  conflict                409
    ├── PayloadTooLargeError           payload_too_large       413
    ├── RateLimitedError               rate_limited            429   retryable
    ├── ProviderError                  provider_error          502
    │   ├── ProviderUnavailableError   provider_unavailable    503   retryable
    │   ├── ProviderTimeoutError       provider_timeout        504   also a TimeoutError
    │   └── IngestionTimeoutError      ingestion_timeout       504
    └── InternalError                  internal_error          500   made by servers only

Misuse is not a protocol error: an unknown provider is `UnknownProviderError` (a ValueError), a missing extra is an
ImportError, a closed client or another event loop is a RuntimeError, an unknown keyword is a TypeError.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal, TypeAlias, get_args

ErrorCode: TypeAlias = Literal[
    "unauthorized",
    "scope_denied",
    "not_found",
    "invalid_request",
    "unsupported_capability",
    "conflict",
    "payload_too_large",
    "rate_limited",
    "provider_error",
    "provider_unavailable",
    "provider_timeout",
    "ingestion_timeout",
    "internal_error",
]
ErrorType: TypeAlias = Literal["auth", "not_found", "invalid", "rate_limited", "provider_error"]

ERROR_CODES: tuple[ErrorCode, ...] = get_args(ErrorCode)

_TYPE_AND_STATUS: dict[str, tuple[ErrorType, int]] = {
    "unauthorized": ("auth", 401),
    "scope_denied": ("auth", 403),
    "not_found": ("not_found", 404),
    "invalid_request": ("invalid", 400),
    "unsupported_capability": ("invalid", 400),
    "conflict": ("invalid", 409),
    "payload_too_large": ("invalid", 413),
    "rate_limited": ("rate_limited", 429),
    "provider_error": ("provider_error", 502),
    "provider_unavailable": ("provider_error", 503),
    "provider_timeout": ("provider_error", 504),
    "ingestion_timeout": ("provider_error", 504),
    "internal_error": ("provider_error", 500),
}


class OpenProtoError(Exception):
    """The base of every protocol error.

    `message` never holds a credential or memory content. `provider` names the backend, `request_id` the call, and
    `retry_after` (seconds) says when to try again where the backend said so.
    """

    code: str = "provider_error"
    retryable: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        provider: str | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.provider = provider
        self.request_id = request_id
        self.retry_after = retry_after

    @property
    def type(self) -> ErrorType:
        """The family of the error on the wire."""
        return _TYPE_AND_STATUS.get(self.code, _TYPE_AND_STATUS["provider_error"])[0]

    @property
    def http_status(self) -> int:
        """The HTTP status that carries this error."""
        return _TYPE_AND_STATUS.get(self.code, _TYPE_AND_STATUS["provider_error"])[1]

    def to_envelope(self) -> dict[str, dict[str, str]]:
        """Return the wire form: `{"error": {"code", "message", "type", "provider"?, "request_id"?}}`."""
        body: dict[str, str] = {"code": self.code, "message": self.message, "type": self.type}
        if self.provider is not None:
            body["provider"] = self.provider
        if self.request_id is not None:
            body["request_id"] = self.request_id
        return {"error": body}

    def __reduce__(self) -> tuple[Any, ...]:
        # Exceptions pickle by positional arguments alone; the keyword ones would be lost between processes.
        return (type(self), (self.message,), self.__dict__)


class UnauthorizedError(OpenProtoError):
    """The backend does not accept the credentials, or wants some."""

    code: str = "unauthorized"


class ScopeDeniedError(OpenProtoError):
    """The credentials are good but do not allow this."""

    code: str = "scope_denied"


class NotFoundError(OpenProtoError):
    """No such record for this user; another user's record is reported the same way."""

    code: str = "not_found"


class InvalidRequestError(OpenProtoError, ValueError):
    """An argument breaks a rule of the protocol; nothing was sent and nothing was written."""

    code: str = "invalid_request"


class UnsupportedCapabilityError(OpenProtoError):
    """The provider cannot do this; raised before any I/O."""

    code: str = "unsupported_capability"


class ConflictError(OpenProtoError):
    """The write contradicts an earlier one, such as another input under the same idempotency key."""

    code: str = "conflict"


class PayloadTooLargeError(OpenProtoError):
    """The request is larger than the backend takes."""

    code: str = "payload_too_large"


class RateLimitedError(OpenProtoError):
    """The backend asks for fewer calls; `retry_after` says when to return, in seconds."""

    code: str = "rate_limited"
    retryable: ClassVar[bool] = True


class ProviderError(OpenProtoError):
    """The backend failed or answered nonsense."""

    code: str = "provider_error"

    @classmethod
    def unknown(cls, code: str, message: str, **context: Any) -> ProviderError:
        """Return the error for a code that a newer server sent: a ProviderError that keeps the code."""
        error = cls(message, **context)
        error.code = code
        return error


class ProviderUnavailableError(ProviderError):
    """The backend cannot be reached or takes no work now; the same call may work later."""

    code: str = "provider_unavailable"
    retryable: ClassVar[bool] = True


class ProviderTimeoutError(ProviderError, TimeoutError):
    """The verb did not finish within the client's `timeout`; a write may have happened all the same."""

    code: str = "provider_timeout"


class IngestionTimeoutError(ProviderError):
    """The backend accepted the memory but did not finish indexing it in time."""

    code: str = "ingestion_timeout"


class InternalError(OpenProtoError):
    """A server's own fault; clients never make it."""

    code: str = "internal_error"


class UnknownProviderError(ValueError):
    """No installed distribution registers a provider of this name."""
