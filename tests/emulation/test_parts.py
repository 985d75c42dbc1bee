"""The small parts that adapters share: what is forgotten, whose an id is, and what an answer of another shape is."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import ClassVar

import pytest

from openproto import ProviderError
from openproto.emulation import TOKEN, OwnedId, Recent, reading, user_token
from openproto.http_status import error_of, read_retry_after


@dataclass(frozen=True, slots=True)
class NoteId(OwnedId):
    pattern: ClassVar[re.Pattern[str]] = re.compile(TOKEN + r"/(?P<note>[0-9]+)")

    note: str


def test_what_was_not_used_for_longest_is_forgotten_first() -> None:
    recent: Recent[str, int] = Recent(2)
    recent.put("a", 1)
    recent.put("b", 2)
    assert recent.get("a") == 1
    recent.put("c", 3)
    assert recent.items() == [("a", 1), ("c", 3)]
    recent.pop("c", 4)
    recent.pop("a")
    assert [recent.get(key) for key in "abc"] == [None, None, 3]


def test_an_id_is_read_for_its_own_user_alone() -> None:
    id = f"{user_token('ann')}/7"
    assert NoteId.read(id) == NoteId.read(id, "ann") == NoteId(user_token("ann"), "7")
    assert NoteId.read(id, "bob") is None
    assert NoteId.read("../7") is None
    with pytest.raises(ValueError, match="this provider has made"):
        NoteId.of("7")


@pytest.mark.parametrize("fault", [AttributeError, KeyError, TypeError, ValueError])
def test_an_answer_of_another_shape_is_a_provider_error_that_repeats_nothing(fault: type[Exception]) -> None:
    with pytest.raises(ProviderError, match="unexpected response from Acme") as caught, reading("Acme"):
        raise fault("the secret of the mountain")
    assert caught.value.__cause__ is None
    assert "mountain" not in str(caught.value)


def test_every_status_is_an_error_that_names_the_vendor() -> None:
    for status in range(200, 600):
        error = error_of(status, vendor="Acme", key="ACME_API_KEY", retry_after=2.0)
        assert "Acme" in error.message
        assert ("ACME_API_KEY" in error.message) == (status == 401)
        assert error.retryable == (status in (402, 429, 502, 503, 504))
        assert (error.retry_after == 2.0) == (status in (429, 502, 503, 504))


def test_retry_after_is_seconds_or_a_date_or_passed_over() -> None:
    def date(hours: float) -> str:
        return format_datetime(datetime.now(UTC) + timedelta(hours=hours), usegmt=True)

    for header, seconds in (("7", 7.0), ("1.5", 1.5), ("-3", 0.0), (date(-1), 0.0), (date(1), 3600.0)):
        assert read_retry_after(header) == pytest.approx(seconds, abs=60 if seconds == 3600 else 0)
    for header in ("soon", "nan", "inf", "", "Thu, 99 Foo 2026", "9" * 500):
        assert read_retry_after(header) is None
