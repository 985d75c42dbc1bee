"""Comparing an answer with the model's: exactly, to the last type, and saying only what differs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from openproto import MemoryRecord, OpenProtoError
from openproto_conformance.checks import shown
from openproto_conformance.model.either import EitherError
from openproto_conformance.model.inputs import same


def fields_of(record: MemoryRecord) -> dict[str, Any]:
    """Return the fields of a record that are there, extensions among them, as plain values."""
    fields = {name: getattr(record, name, None) for name in type(record).model_fields}
    fields["source"] = None if record.source is None else {k: v for k, v in record.source if v is not None}
    fields |= record.extensions
    return {name: value for name, value in fields.items() if value not in (None, [])}


def record_faults(got: MemoryRecord, wanted: MemoryRecord, own: str) -> list[str]:
    """Return how a record differs from the model's; `own` is the extension in which the backend says what it likes."""
    there, due = fields_of(got), fields_of(wanted)
    there.pop("duplicate_of", None)  # what an add says of itself and no record keeps
    faults = [
        f"{name}: wanted {shown(due.get(name))}, got {shown(there.get(name))}"
        for name in sorted(there.keys() | due.keys())
        if not same(there.get(name), due.get(name)) and name != "status" and not (name == own and name not in due)
    ]
    for name, value in there.items():
        if isinstance(value, datetime) and value.utcoffset() != timedelta(0):
            faults.append(f"{name}: is not in UTC but at {value.utcoffset()}")
    return faults


def ids_faults(got: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """Return what is missing, what should not be there, or that the order is another one."""
    if list(got) == list(wanted):
        return []
    missing, extra = [id for id in wanted if id not in got], [id for id in got if id not in wanted]
    faults = [f"missing: {', '.join(missing)}"] if missing else []
    faults += [f"should not be there: {', '.join(extra)}"] if extra else []
    return faults or [f"the order: wanted {list(wanted)}, got {list(got)}"]


def outcome_faults(got: object, wanted: object) -> list[str] | None:
    """Return how an error differs from the outcome wanted; None where both are answers that must be looked at."""
    if isinstance(wanted, OpenProtoError):
        codes = wanted.codes if isinstance(wanted, EitherError) else {wanted.code}
        if isinstance(got, OpenProtoError) and got.code in codes:
            return []
        return [f"wanted {type(wanted).__name__} ({wanted}), got {_kind(got)}"]
    if isinstance(got, BaseException):
        return [f"wanted an answer, got {_kind(got)}"]
    return None


def _kind(outcome: object) -> str:
    return (
        f"{type(outcome).__name__}: {outcome}" if isinstance(outcome, BaseException) else f"a {type(outcome).__name__}"
    )
