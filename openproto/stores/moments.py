"""Moments as whole microseconds since 1970, in which backends without a type for them keep and compare them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


def to_micros(moment: datetime) -> int:
    """Return the microseconds from the epoch to `moment`."""
    return (moment - EPOCH) // MICROSECOND


def from_micros(micros: int) -> datetime:
    """Return the moment that is `micros` microseconds after the epoch."""
    return EPOCH + micros * MICROSECOND
