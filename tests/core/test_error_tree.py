"""The errors of the protocol: codes, families, statuses, envelopes, and the tree that the docstring draws."""

from __future__ import annotations

import copy
import pickle
import re
from typing import get_args

import pytest

from openproto import errors
from openproto.errors import (
    ERROR_CODES,
    ErrorType,
    InvalidRequestError,
    NotFoundError,
    OpenProtoError,
    ProviderError,
    ProviderTimeoutError,
    UnknownProviderError,
)

TABLE = {
    "UnauthorizedError": ("unauthorized", "auth", 401),
    "ScopeDeniedError": ("scope_denied", "auth", 403),
    "NotFoundError": ("not_found", "not_found", 404),
    "InvalidRequestError": ("invalid_request", "invalid", 400),
    "UnsupportedCapabilityError": ("unsupported_capability", "invalid", 400),
    "ConflictError": ("conflict", "invalid", 409),
    "PayloadTooLargeError": ("payload_too_large", "invalid", 413),
    "RateLimitedError": ("rate_limited", "rate_limited", 429),
    "ProviderError": ("provider_error", "provider_error", 502),
    "ProviderUnavailableError": ("provider_unavailable", "provider_error", 503),
    "ProviderTimeoutError": ("provider_timeout", "provider_error", 504),
    "IngestionTimeoutError": ("ingestion_timeout", "provider_error", 504),
    "InternalError": ("internal_error", "provider_error", 500),
}


def below(cls: type[OpenProtoError]) -> list[type[OpenProtoError]]:
    return [
        kind for child in cls.__subclasses__() for kind in (child, *below(child)) if kind.__module__ == cls.__module__
    ]


CLASSES = {cls.__name__: cls for cls in below(OpenProtoError)}


def test_the_classes_codes_families_and_statuses_are_those_of_the_protocol() -> None:
    errors = {name: cls("x") for name, cls in CLASSES.items()}
    assert {name: (error.code, error.type, error.http_status) for name, error in errors.items()} == TABLE
    assert sorted(error.code for error in errors.values()) == sorted(ERROR_CODES)
    assert {kind for _, kind, _ in TABLE.values()} == set(get_args(ErrorType))


def test_the_classes_are_related_as_callers_catch_them_and_as_the_docstring_draws() -> None:
    assert {name for name, cls in CLASSES.items() if cls.retryable} == {"RateLimitedError", "ProviderUnavailableError"}
    below_provider = {"ProviderUnavailableError", "ProviderTimeoutError", "IngestionTimeoutError"}
    assert {cls.__name__ for cls in below(ProviderError)} == below_provider
    assert issubclass(InvalidRequestError, ValueError)
    assert issubclass(ProviderTimeoutError, TimeoutError)
    assert issubclass(UnknownProviderError, ValueError)
    assert not issubclass(UnknownProviderError, OpenProtoError)
    rows = re.findall(r"^    ((?:│   )*[├└]── )(\w+) +(\w+) +(\d{3})", errors.__doc__ or "", re.MULTILINE)
    drawn = {name: (len(lead) // 4, code, int(status)) for lead, name, code, status in rows}
    assert drawn == {
        name: (2 if name in below_provider else 1, code, status) for name, (code, _, status) in TABLE.items()
    }


def test_the_envelope_names_the_provider_and_the_request_where_they_are_known() -> None:
    least = {"code": "not_found", "message": "gone", "type": "not_found"}
    assert NotFoundError("gone").to_envelope() == {"error": least}
    envelope = NotFoundError("gone", provider="sqlite", request_id="r1").to_envelope()
    assert envelope == {"error": {**least, "provider": "sqlite", "request_id": "r1"}}
    unknown = ProviderError.unknown("teapot", "short and stout")  # a code of the future
    assert (unknown.to_envelope()["error"]["code"], pickle.loads(pickle.dumps(unknown)).code) == ("teapot", "teapot")
    assert (type(unknown), unknown.type, unknown.http_status) == (ProviderError, "provider_error", 502)


@pytest.mark.parametrize("cls", CLASSES.values(), ids=CLASSES.keys())
def test_an_error_survives_pickling_and_copying_with_everything_it_knows(cls: type[OpenProtoError]) -> None:
    error = cls("why", provider="p", request_id="r", retry_after=1.5)
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(again) is cls
        assert (str(again), again.provider, again.request_id, again.retry_after) == ("why", "p", "r", 1.5)
