"""How long the event loop stood still is a figure of every conformance report, and a true one."""

from __future__ import annotations

from pathlib import Path

import pytest
from openproto_adapters.sqlite import Sqlite
from openproto_conformance.execute import ALL_WORK, SuiteRun
from saboteurs import BlocksTheLoop, SuiteOf

(WORK,) = [work for work in ALL_WORK if work.case.name == "the_loop_is_never_blocked"]


@pytest.mark.promise(92, 115)
@pytest.mark.parametrize(("provider", "outcome"), [(Sqlite, "passed"), (BlocksTheLoop, "failed")])
def test_the_longest_stall_is_measured_and_judged(provider: type[Sqlite], outcome: str, tmp_path: Path) -> None:
    result = SuiteRun(quick=True).execute(SuiteOf(provider, tmp_path), WORK)
    assert result.outcome == outcome, result.detail
    assert (result.measures["longest_stall_ms"] < 20) == (outcome == "passed")
