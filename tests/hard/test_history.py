"""A short history on each store is linearizable; the long ones are parts of `make check-hard`."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import lasting
import pytest
from history import fault_of, history_of


@pytest.mark.parametrize("provider", ["sqlite", "postgres"])
async def test_one_order_explains_what_four_processes_were_told(provider: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"embedder": "none"}
    if provider == "sqlite":
        options |= {"path": str(tmp_path / "memory.db"), "synchronous": "normal"}
    else:
        options |= {"url": lasting.postgres_url("test_history")}
    made = await history_of(provider, options, processes=4, operations=400, chance=random.Random(1))
    assert len(made) == 400
    assert {one.outcome for one in made} == {"ok", "conflict", "not_found"}
    assert fault_of(made) is None
    # What the check is for: two changes of one version, and a read of what had been replaced before.
    done = sorted((one for one in made if one.outcome == "ok"), key=lambda one: one.ended)
    change = next(one for one in done if one.verb == "update" and one.if_version)
    assert "nothing explains" in (fault_of([*made, replace(change, version="another")]) or "")
    read = next(one for one in reversed(done) if one.verb == "get")
    old = next(one for one in done if one.verb == "put" and one.key == read.key)
    stale = replace(read, id=old.id, version=old.version, content=old.content)
    assert "nothing explains" in (fault_of([stale if one is read else one for one in made]) or "")
