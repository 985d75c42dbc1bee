"""What a backend answers: models that are lenient on read, frozen, safe to show; errors with codes and statuses."""

from __future__ import annotations

import copy
import json
import pickle
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from openproto import errors, models
from openproto.errors import ERROR_CODES, ErrorType, NotFoundError, OpenProtoError, ProviderError
from openproto.models import ContextBlock, MemoryPage, MemoryRecord, SearchResult

LEAST: dict[str, Any] = {"id": "1", "content": "tea", "user_id": "ada", "created_at": "2026-01-01T12:00:00Z"}


def test_the_wire_form_is_json_in_utc_without_absent_fields_and_with_those_of_a_newer_server() -> None:
    assert MemoryRecord(**LEAST).to_wire() == LEAST
    full = {**LEAST, "tags": ["a"], "source": {"app": "x"}, "valid_to": "2027-01-01T00:00:00+02:00"}
    record = MemoryRecord.model_validate({**full, "confidence": 0.0, "mood": "calm", "x-mem0": {"hash": 1}})
    wire = record.to_wire()
    assert json.loads(json.dumps(wire)) == wire
    assert (wire["confidence"], wire["mood"], wire["valid_to"]) == (0.0, "calm", "2026-12-31T22:00:00Z")
    assert record.extensions == {"x-mem0": {"hash": 1}}
    with pytest.raises(ValidationError):
        MemoryRecord(**{**LEAST, "created_at": "2026-01-01T12:00:00"})


@pytest.mark.parametrize(
    ("model", "fields"),
    [
        (MemoryRecord, {**LEAST, "status": "dreaming"}),
        (models.MemorySource, {"type": "overheard"}),
        (models.AuditEntry, {"timestamp": "2026-01-01T12:00:00Z", "action": "forget", "user_id": "ada"}),
        (models.Capabilities, {"provider": "x", "verbs": ["add", "forget"]}),
        (models.Features, {"scopes": "planned"}),
    ],
)
def test_enum_values_of_a_newer_server_are_kept(model: Any, fields: dict[str, Any]) -> None:
    wire = model.model_validate(fields).to_wire()
    assert {name: wire[name] for name in fields} == fields


def test_a_page_is_read_as_it_was_written_and_is_a_sequence_of_its_records() -> None:
    assert MemoryPage(items=[]).to_wire() == {"items": []}
    assert MemoryPage(items=[])  # as truthy as any model
    page = MemoryPage.model_validate({"items": [{**LEAST, "tags": ["a"], "x-y": [1]}], "next_cursor": "c"})
    assert page.to_wire()["next_cursor"] == "c"
    assert MemoryPage.model_validate_json(json.dumps(page.to_wire())) == page
    (record,) = page
    assert (len(page), page[0], page.to_dicts()[0]["created_at"]) == (1, record, record.created_at)


def test_a_repr_is_short_and_holds_no_content_and_html_shows_it_as_text() -> None:
    hostile = "<script>alert(1)</script>" + "tea " * 200
    record = MemoryRecord(**{**LEAST, "content": hostile, "scope": "a"})
    assert repr(record) == "MemoryRecord(id='1', user_id='ada', scope='a')"
    results = [
        *(record, MemoryPage(items=[record] * 100, next_cursor="c"), SearchResult(memory=record, score=0.5)),
        ContextBlock(text=hostile, citations=[models.Citation(memory_id="1", score=0.5)], token_count=3),
    ]
    for result in results:
        assert max(len(repr(result)), len(str(result))) < 120
        assert "tea" not in repr(result) + str(result)
        html = result._repr_html_()
        assert ("<script>" in html, "&lt;script&gt;" in html) == (False, True)


@pytest.mark.parametrize("extra", [{}, {"x-mem0": {"n": 1}}])
def test_a_record_of_valid_fields_is_the_one_that_validation_makes_and_cannot_be_changed(extra: dict[str, Any]) -> None:
    some = {
        "created_at": datetime(2026, 1, 2, tzinfo=UTC),
        "source": models.MemorySource(app="notes"),
        "status": "done",
    }
    fields: dict[str, Any] = {**dict.fromkeys(MemoryRecord.model_fields), **LEAST, **some, "tags": ["a"]}
    fields["supersedes"] = []
    validated, made = MemoryRecord(**fields, **extra), MemoryRecord.of_valid(dict(fields), dict(extra))
    for same in (made, pickle.loads(pickle.dumps(made)), copy.deepcopy(made), made.model_copy()):
        assert same == validated
        assert (repr(same), list(same), same.model_extra) == (repr(validated), list(validated), validated.model_extra)
        assert same.model_fields_set == validated.model_fields_set
        assert same.model_dump_json() == validated.model_dump_json()
        assert same.extensions == validated.extensions
    assert made.model_copy(update={"content": "milk"}) == validated.model_copy(update={"content": "milk"})
    for record in (made, validated):
        with pytest.raises(ValidationError):
            record.content = "milk"  # type: ignore[misc]


PROTOCOL = (Path(__file__).parents[2] / "docs/protocol.md").read_text(encoding="utf-8")
TABLE = {
    name: (code, int(status))
    for name, code, status in re.findall(r"^\| `(\w+Error)`.*\| `(\w+)` \| (\d{3}) \|$", PROTOCOL, re.MULTILINE)
}
TYPES = {401: "auth", 403: "auth", 404: "not_found", 429: "rate_limited", **dict.fromkeys((400, 409, 413), "invalid")}


def below(cls: type[OpenProtoError]) -> list[type[OpenProtoError]]:
    return [
        kind for child in cls.__subclasses__() for kind in (child, *below(child)) if kind.__module__ == cls.__module__
    ]


CLASSES = {cls.__name__: cls for cls in below(OpenProtoError)}


def test_the_classes_codes_families_and_statuses_are_those_of_the_protocol() -> None:
    errors = {name: cls("x") for name, cls in CLASSES.items()}
    assert {name: (error.code, error.http_status) for name, error in errors.items()} == TABLE
    assert sorted(error.code for error in errors.values()) == sorted(ERROR_CODES)
    assert {error.type for error in errors.values()} == set(get_args(ErrorType))
    assert all(error.type == TYPES.get(error.http_status, "provider_error") for error in errors.values())


def test_the_classes_are_related_as_callers_catch_them_and_as_the_docstring_draws() -> None:
    assert {name for name, cls in CLASSES.items() if cls.retryable} == {"RateLimitedError", "ProviderUnavailableError"}
    below_provider = {"ProviderUnavailableError", "ProviderTimeoutError", "IngestionTimeoutError"}
    assert {cls.__name__ for cls in below(ProviderError)} == below_provider
    assert issubclass(errors.InvalidRequestError, ValueError)
    assert issubclass(errors.ProviderTimeoutError, TimeoutError)
    assert issubclass(errors.UnknownProviderError, ValueError)
    assert not issubclass(errors.UnknownProviderError, OpenProtoError)
    rows = re.findall(r"^    ((?:│   )*[├└]── )(\w+) +(\w+) +(\d{3})", errors.__doc__ or "", re.MULTILINE)
    drawn = {name: (len(lead) // 4, code, int(status)) for lead, name, code, status in rows}
    assert drawn == {name: (2 if name in below_provider else 1, *of_it) for name, of_it in TABLE.items()}


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
