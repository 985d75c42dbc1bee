"""The simulator of growth: the same for the same seed, and more machines help."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.scaling import SEARCH_CPU_MS, Load, search_ms, simulate

LOAD = Load(users=200_000, shards=4, cores=1, peak=10.0, seconds=4.0)


def test_it_repeats_itself_and_halves_the_load_of_twice_the_shards() -> None:
    once, twice = simulate(LOAD), simulate(replace(LOAD, shards=8))
    assert simulate(LOAD) == once
    assert twice.busiest_cores < 0.8 * once.busiest_cores
    assert twice.hot_gb == once.hot_gb / 2
    assert twice.stored_gb == once.stored_gb


def test_what_is_too_much_for_the_cores_queues() -> None:
    well, badly = simulate(LOAD), simulate(replace(LOAD, users=5_000_000, seconds=0.5))
    assert badly.p99_ms > 2 * well.p99_ms
    assert simulate(replace(LOAD, users=5_000_000, seconds=0.5, disk_gb=1.0)).first_limit.startswith("disk")


@pytest.mark.parametrize(("size", "cost"), SEARCH_CPU_MS)
def test_a_search_costs_what_was_measured_and_more_for_more(size: int, cost: float) -> None:
    assert search_ms(size) == pytest.approx(cost)
    assert search_ms(size * 0.9) < search_ms(size) < search_ms(size * 1.1)
