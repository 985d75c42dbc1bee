"""Keys, versions, handovers, restoring, and the second line of defence between users, on a real PostgreSQL."""

from __future__ import annotations

import pytest
from store_contract import CASES, Case

from openproto import AsyncMemory


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
async def test_the_contract(memory: AsyncMemory, case: Case) -> None:
    await case(memory)
