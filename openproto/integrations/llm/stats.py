"""What memory around an LLM client has done so far, in numbers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CaptureStats:
    """Counts of turns, and of recalls, since the queue was made; `waiting` and `in_flight` are as of now.

    Every captured turn ends in exactly one of `stored`, `skipped` (nothing in it was to be kept, or the backend takes
    no such content), `failed` (the extractor or the backend did not succeed), and `dropped` (the queue was full or
    closed). `retried` counts batches sent again.
    `last_error` is the latest reason for a failed turn or recall.
    """

    waiting: int = 0
    in_flight: int = 0
    stored: int = 0
    skipped: int = 0
    failed: int = 0
    dropped: int = 0
    retried: int = 0
    recalled: int = 0
    recall_failed: int = 0
    last_error: Exception | None = None
