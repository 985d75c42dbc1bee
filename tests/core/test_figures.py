"""The figures in documents are those of one whole run of `make bench`, and the simulator of growth repeats itself."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.__main__ import BENCHMARKS, DOCUMENTS, EXACT, FIGURES, RUNS
from benchmarks.report import quoted
from benchmarks.scaling import SEARCH_CPU_MS, Load, search_ms, simulate

REPORT = json.loads(FIGURES.read_text(encoding="utf-8"))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_a_document_quotes_the_figures_of_the_run_that_is_kept(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    assert "<!-- figures" in text
    assert quoted(text, REPORT) == text


def test_the_run_that_is_kept_is_whole() -> None:
    assert not REPORT["quick"]
    assert [*dict.fromkeys(figure["benchmark"] for figure in REPORT["figures"])] == [*BENCHMARKS]
    timed = [one for one in REPORT["figures"] if one["value"] is not None and one["benchmark"] not in EXACT]
    assert all(len(figure["detail"]["runs"]) == RUNS for figure in timed)


def test_the_simulator_repeats_itself_and_queues_what_is_too_much_for_the_cores() -> None:
    load = Load(users=200_000, shards=4, cores=1, peak=10.0, seconds=4.0)
    once, twice = simulate(load), simulate(replace(load, shards=8))
    assert simulate(load) == once
    assert twice.busiest_cores < 0.8 * once.busiest_cores
    assert (twice.hot_gb, twice.stored_gb) == (once.hot_gb / 2, once.stored_gb)
    crowded = replace(load, users=5_000_000, seconds=0.5)
    assert simulate(crowded).p99_ms > 2 * once.p99_ms
    assert simulate(replace(crowded, disk_gb=1.0)).first_limit.startswith("disk")
    for size, cost in SEARCH_CPU_MS:
        assert search_ms(size) == pytest.approx(cost)
        assert search_ms(size * 0.9) < search_ms(size) < search_ms(size * 1.1)
