"""Letta's own SDK next to the fixtures of every vendor."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import letta_client as sdk
import pytest
from hosted import BY_NAME, Hosted


@pytest.fixture
def hosted() -> Hosted:
    """The vendor of this folder."""
    return BY_NAME["letta"]


@pytest.fixture
def raw(emulator: Any) -> Iterator[sdk.Letta]:
    """Letta's SDK as another program would use it."""
    with httpx.Client(trust_env=False, timeout=10.0) as http:
        yield sdk.Letta(base_url=emulator.url, api_key=emulator.api_key, http_client=http, max_retries=0)
