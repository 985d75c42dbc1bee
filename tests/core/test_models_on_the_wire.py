"""The models of what a backend answers: lenient on read, frozen, absent fields left out, datetimes in UTC."""

from __future__ import annotations

import copy
import json
import pickle
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from openproto.models import AuditEntry, Capabilities, Features, MemoryPage, MemoryRecord, MemorySource

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
        (MemorySource, {"type": "overheard"}),
        (AuditEntry, {"timestamp": "2026-01-01T12:00:00Z", "action": "forget", "user_id": "ada"}),
        (Capabilities, {"provider": "x", "verbs": ["add", "forget"]}),
        (Features, {"scopes": "planned"}),
    ],
)
def test_enum_values_of_a_newer_server_are_kept(model: Any, fields: dict[str, Any]) -> None:
    wire = model.model_validate(fields).to_wire()
    assert {name: wire[name] for name in fields} == fields


def test_a_page_is_read_as_it_was_written_and_the_last_has_no_cursor() -> None:
    assert MemoryPage(items=[]).to_wire() == {"items": []}
    page = MemoryPage.model_validate({"items": [{**LEAST, "tags": ["a"], "x-y": [1]}], "next_cursor": "c"})
    assert page.to_wire()["next_cursor"] == "c"
    assert MemoryPage.model_validate_json(json.dumps(page.to_wire())) == page


def test_capabilities_say_which_protocol_they_speak_and_an_absent_feature_is_false() -> None:
    features = Features.model_validate({})
    assert not any(value for name, value in features if name not in ("scopes", "max_content_length"))
    assert features.scopes == "none"
    own = {"support": {"add": "native"}, "cancellation": "aborting"}
    wire = Capabilities.model_validate({"provider": "x", "verbs": [], "x-openproto": own}).to_wire()
    assert (wire["omp_version"], wire["x-openproto"]) == ("0.1", own)


@pytest.mark.parametrize("extra", [{}, {"x-mem0": {"n": 1}}])
def test_a_record_of_valid_fields_is_the_one_that_validation_makes_and_cannot_be_changed(extra: dict[str, Any]) -> None:
    some = {"created_at": datetime(2026, 1, 2, tzinfo=UTC), "source": MemorySource(app="notes"), "status": "done"}
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
