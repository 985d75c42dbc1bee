"""The models of what a backend answers: lenient on read, frozen, absent fields left out, safe to show."""

from __future__ import annotations

import copy
import json
import pickle
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from openproto import models
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


def test_capabilities_say_which_protocol_they_speak_and_an_absent_feature_is_false() -> None:
    features = models.Features.model_validate({})
    assert not any(value for name, value in features if name not in ("scopes", "max_content_length"))
    assert features.scopes == "none"
    own = {"support": {"add": "native"}, "cancellation": "aborting"}
    wire = models.Capabilities.model_validate({"provider": "x", "verbs": [], "x-openproto": own}).to_wire()
    assert (wire["omp_version"], wire["x-openproto"]) == ("0.1", own)


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
