"""`python -m benchmarks.scaling`: a load of many users over PostgreSQL shards, simulated from measured costs.

Each shard is a queue before its cores. A request goes to the shard that its user's id hashes to and takes the CPU that
its verb takes for a user with that many memories; what is stored is counted from the bytes of a memory. The result is
what each shard needs of cores, memory, and disk, how long requests take, and which of the three is used up first.
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from statistics import median

MEMORY_BYTES = {"table": 1042, "covering index": 1371, "other indexes": 43}
"""Bytes of a memory of 127 characters with a vector of 256 dimensions, by part; docs/scaling.md says how measured."""
AUDIT_BYTES = 194
"""Bytes of an audit entry and its place in the index; every call leaves one."""
CPU_MS = {"get": 0.09, "list": 0.24, "add": 0.31}
SEARCH_CPU_MS = ((1_000, 4.5), (10_000, 26.0), (30_000, 74.0), (100_000, 190.0), (300_000, 805.0))
"""Milliseconds of one backend for a search, by how many memories its user has; exact search."""
CALLS_A_DAY = {"search": 20, "add": 10, "get": 6, "list": 4}
ROUND_TRIP_MS = 0.5


@dataclass(frozen=True)
class Load:
    """Who stores what and asks how often, on which machines."""

    users: int = 100_000
    memories: float = 1_000.0  # of one user, on average
    spread: float = 1.0  # sigma of the lognormal distribution of memories over users; 0: all have the same
    shards: int = 1
    cores: int = 16
    ram_gb: float = 64.0
    disk_gb: float = 2_000.0
    days: int = 365  # for which audit entries are kept
    active: float = 0.1  # share of the users whose part of the covering index is in use at a time
    peak: float = 3.0  # the busiest minute against the average
    seconds: float = 10.0
    seed: int = 20261129


@dataclass(frozen=True)
class Forecast:
    """What the load does to the shards."""

    memories: float
    stored_gb: float
    audit_gb: float
    requests_a_second: float
    busiest_cores: float
    """Cores that the busiest shard uses; beyond its own they queue without end."""
    hot_gb: float
    """The part of a shard's covering index that searches read all the time, which should stay in memory."""
    p50_ms: float
    p99_ms: float
    first_limit: str
    """Which of cores, memory, and disk is used up first, and how far it is used."""


def search_ms(memories: float) -> float:
    """Return the CPU of a search: on lines of logarithms between the measured points, and on the last one beyond."""
    points = [(math.log(size), math.log(cost)) for size, cost in SEARCH_CPU_MS]
    if (x := math.log(max(memories, 1.0))) < points[0][0]:
        return SEARCH_CPU_MS[0][1] * (0.15 + 0.85 * memories / SEARCH_CPU_MS[0][0])
    below, above = next((pair for pair in pairwise(points) if x <= pair[1][0]), (points[-2], points[-1]))
    return math.exp(below[1] + (above[1] - below[1]) * (x - below[0]) / (above[0] - below[0]))


def simulate(load: Load) -> Forecast:
    """Return what `load` does to its shards."""
    chance = random.Random(load.seed)
    rate = load.users * sum(CALLS_A_DAY.values()) / 86_400 * load.peak
    free = [[0.0] * load.cores for _ in range(load.shards)]
    busy = [0.0] * load.shards
    took: list[float] = []
    now = chance.expovariate(rate)
    while now < load.seconds:
        user = chance.randrange(load.users)
        shard = random.Random(f"shard {user}").randrange(load.shards)
        verb = chance.choices([*CALLS_A_DAY], [*CALLS_A_DAY.values()])[0]
        cost = search_ms(_memories_of(user, load)) if verb == "search" else CPU_MS[verb]
        begins = max(now, heapq.heappop(free[shard]))
        heapq.heappush(free[shard], begins + cost / 1000)
        busy[shard] += cost / 1000
        took.append((begins - now) * 1000 + cost + ROUND_TRIP_MS)
        now += chance.expovariate(rate)
    memories = load.users * load.memories
    audit_gb = load.users * sum(CALLS_A_DAY.values()) * load.days * AUDIT_BYTES / 1e9
    stored_gb = memories * sum(MEMORY_BYTES.values()) / 1e9 + audit_gb
    hot_gb = memories * MEMORY_BYTES["covering index"] * load.active / load.shards / 1e9
    cores = max(busy) / load.seconds
    shares = {
        "cores": cores / load.cores,
        "memory": hot_gb / load.ram_gb,
        "disk": stored_gb / load.shards / load.disk_gb,
    }
    first = max(shares, key=lambda name: shares[name])
    return Forecast(
        memories, stored_gb, audit_gb, rate, cores, hot_gb, _quantile(took, 0.5), _quantile(took, 0.99),
        f"{first}, {shares[first]:.0%} used",
    )  # fmt: skip


def _memories_of(user: int, load: Load) -> float:
    """Return how many memories a user has: always the same, and `load.memories` on average."""
    mean = math.log(load.memories) - load.spread**2 / 2
    return random.Random(f"{load.seed} {user}").lognormvariate(mean, load.spread)


def _quantile(values: Sequence[float], share: float) -> float:
    if not values:
        return 0.0
    return median(values) if share == 0.5 else sorted(values)[int(share * (len(values) - 1))]


def main() -> None:
    """Print the forecast of the load that the options name, as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=(__doc__ or "").split("\n")[2])
    for name, default in asdict(Load()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default, help=f"[{default}]")
    load = Load(**vars(parser.parse_args()))
    told = {name: round(v, 3) if isinstance(v, float) else v for name, v in asdict(simulate(load)).items()}
    print(json.dumps(told, indent=2))


if __name__ == "__main__":
    main()
