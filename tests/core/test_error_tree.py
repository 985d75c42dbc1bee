"""The errors of the protocol: codes, families, statuses, envelopes, and the tree that the docstring draws."""

from __future__ import annotations

import copy
import pickle
import re
from typing import Any, get_args

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
    RateLimitedError,
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
every_class = pytest.mark.parametrize("cls", CLASSES.values(), ids=CLASSES.keys())


def test_the_classes_are_those_of_the_protocol() -> None:
    assert CLASSES.keys() == TABLE.keys()


@every_class
def test_each_class_has_the_code_the_family_and_the_status_of_the_table(cls: type[OpenProtoError]) -> None:
    error = cls("x")
    assert (error.code, error.type, error.http_status) == TABLE[cls.__name__]


def test_each_code_belongs_to_one_class() -> None:
    assert sorted(cls.code for cls in CLASSES.values()) == sorted(ERROR_CODES)


def test_the_families_are_those_of_the_protocol() -> None:
    assert {kind for _, kind, _ in TABLE.values()} == set(get_args(ErrorType))


def test_only_what_may_pass_by_itself_is_retryable() -> None:
    assert {name for name, cls in CLASSES.items() if cls.retryable} == {"RateLimitedError", "ProviderUnavailableError"}


def test_an_invalid_request_is_a_value_error() -> None:
    assert issubclass(InvalidRequestError, ValueError)


def test_a_provider_timeout_is_a_timeout_error() -> None:
    assert issubclass(ProviderTimeoutError, TimeoutError)


def test_an_unknown_provider_is_a_value_error_and_no_error_of_the_protocol() -> None:
    assert issubclass(UnknownProviderError, ValueError)
    assert not issubclass(UnknownProviderError, OpenProtoError)


def test_what_the_backend_does_wrong_is_caught_by_provider_error() -> None:
    assert {cls.__name__ for cls in below(ProviderError)} == {
        "ProviderUnavailableError",
        "ProviderTimeoutError",
        "IngestionTimeoutError",
    }


def test_the_least_envelope_has_code_message_and_type() -> None:
    assert NotFoundError("no such memory").to_envelope() == {
        "error": {"code": "not_found", "message": "no such memory", "type": "not_found"}
    }


def test_the_envelope_names_the_provider_and_the_request_where_they_are_known() -> None:
    envelope = NotFoundError("gone", provider="sqlite", request_id="r1").to_envelope()
    assert envelope["error"] == {
        "code": "not_found",
        "message": "gone",
        "type": "not_found",
        "provider": "sqlite",
        "request_id": "r1",
    }


@every_class
def test_an_error_survives_pickling_with_everything_it_knows(cls: type[OpenProtoError]) -> None:
    error = cls("why", provider="p", request_id="r", retry_after=1.5)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is cls
    assert (str(again), again.provider, again.request_id, again.retry_after) == ("why", "p", "r", 1.5)


def test_an_error_survives_copying() -> None:
    again = copy.copy(RateLimitedError("slow down", retry_after=3))
    assert (again.message, again.retry_after) == ("slow down", 3)


def test_an_unknown_code_becomes_a_provider_error_that_keeps_it() -> None:
    error = ProviderError.unknown("teapot", "short and stout", provider="new")
    assert (type(error), error.code, error.type, error.http_status) == (ProviderError, "teapot", "provider_error", 502)
    assert error.to_envelope()["error"]["code"] == "teapot"


def test_an_unknown_code_survives_pickling() -> None:
    assert pickle.loads(pickle.dumps(ProviderError.unknown("teapot", "x"))).code == "teapot"


def test_an_unknown_code_does_not_stick_to_the_class() -> None:
    ProviderError.unknown("teapot", "x")
    assert ProviderError("y").code == "provider_error"


@pytest.mark.parametrize("keyword", ["provider", "request_id", "retry_after"])
def test_what_an_error_knows_beside_its_message_is_given_by_keyword(keyword: str) -> None:
    given: dict[str, Any] = {keyword: "v"}
    assert getattr(OpenProtoError("m", **given), keyword) == "v"
    with pytest.raises(TypeError):
        OpenProtoError("m", "v")  # type: ignore[misc]


def drawn() -> dict[str, tuple[int, str, int]]:
    """Return what the docstring draws: name -> (depth, code, status)."""
    rows = re.findall(r"^    ((?:│   )*[├└]── )(\w+) +(\w+) +(\d{3})", errors.__doc__ or "", re.MULTILINE)
    return {name: (len(lead) // 4, code, int(status)) for lead, name, code, status in rows}


def test_the_docstring_draws_every_class_with_its_code_and_status() -> None:
    assert {name: row[1:] for name, row in drawn().items()} == {n: (c, s) for n, (c, _, s) in TABLE.items()}


@every_class
def test_the_docstring_draws_each_class_under_its_parent(cls: type[OpenProtoError]) -> None:
    parents = [parent for parent in cls.__mro__[1:] if issubclass(parent, OpenProtoError)]
    assert drawn()[cls.__name__][0] == len(parents)


@pytest.mark.parametrize("note", ["retryable", "also a ValueError", "also a TimeoutError"])
def test_the_docstring_says_what_each_class_is_besides(note: str) -> None:
    meant = {
        "retryable": {name for name, cls in CLASSES.items() if cls.retryable},
        "also a ValueError": {name for name, cls in CLASSES.items() if issubclass(cls, ValueError)},
        "also a TimeoutError": {name for name, cls in CLASSES.items() if issubclass(cls, TimeoutError)},
    }[note]
    lines = [line for line in (errors.__doc__ or "").splitlines() if note in line]
    assert {re.findall(r"\w+Error", line)[0] for line in lines} == meant
