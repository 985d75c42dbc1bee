"""What HTTP says of a failure: statuses, and how long to wait (RFC 9110)."""

from __future__ import annotations

import math


def read_retry_after(header: str) -> float | None:
    """Return the seconds that a Retry-After header asks for, itself seconds or a date (RFC 9110, 10.2.3), or None."""
    # Imported here: `import openproto` should not pay for what only a refusal needs.
    from datetime import UTC, datetime
    from email.utils import parsedate_to_datetime

    try:
        seconds = float(header)
    except ValueError:
        try:
            moment = parsedate_to_datetime(header)
        except ValueError:
            return None
        seconds = (moment.replace(tzinfo=moment.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    return max(seconds, 0.0) if math.isfinite(seconds) else None
