"""What the README's table of providers says of each: that there is one, and how its calls are cancelled."""

from __future__ import annotations

import json
import re
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

from openproto.registry import make_provider

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| `(\w+)` \| `openproto\[\w+\]` \|.*\| ([a-z, ]+) \|$", README, re.MULTILINE)
TIERS = {name: tiers.split(", ") for name, tiers in ROWS}
NOWHERE = "http://127.0.0.1:1"

CLIENTS: list[tuple[str, dict[str, Any], str]] = [
    ("sqlite", {"embedder": "none"}, "native"),
    ("postgres", {"url": "postgresql://ada@127.0.0.1:1/none", "embedder": "none"}, "native"),
    ("passthrough", {"base_url": NOWHERE}, "native"),
    ("memorysync", {"base_url": NOWHERE, "api_key": "k"}, "native"),
    ("memsy", {"base_url": NOWHERE, "api_key": "k"}, "native"),
    ("mem0", {"base_url": NOWHERE, "api_key": "k"}, "aborting"),
    ("supermemory", {"base_url": NOWHERE, "api_key": "k"}, "aborting"),
    ("letta", {"base_url": NOWHERE, "api_key": "k"}, "aborting"),
    ("mem0", {}, "detached"),
    ("memori", {}, "detached"),
]


def test_the_table_has_every_provider_of_the_project_and_no_other() -> None:
    ours = {point.name for point in entry_points(group="openproto.providers") if point.dist.name == "openproto"}  # type: ignore[union-attr]
    assert set(TIERS) == ours == {name for name, _, _ in CLIENTS}
    assert {(name, tier) for name, tiers in TIERS.items() for tier in tiers} == {(n, tier) for n, _, tier in CLIENTS}


@pytest.mark.promise(84)
@pytest.mark.parametrize(("name", "options", "tier"), CLIENTS)
def test_a_provider_has_the_strategy_that_the_table_gives_it(name: str, options: dict[str, Any], tier: str) -> None:
    assert make_provider(name, options).cancellation == tier


CONSTRUCT = """
import json, sys, threading, time
from openproto import AsyncMemory, Memory
from openproto.registry import provider_class

touched, WATCHED = [], ()
sys.addaudithook(lambda event, args: touched.append(event) if event in WATCHED else None)
for name, options, _ in json.loads(sys.argv[1]):
    cls, best = provider_class(name), float("inf")
    cls(**options)
    WATCHED = ("open", "os.mkdir", "import", "socket.__new__", "socket.connect", "sqlite3.connect")
    for _ in range(20):
        started = time.perf_counter()
        AsyncMemory(cls(**options)), Memory(cls(**options))
        best = min(best, (time.perf_counter() - started) / 2)
    WATCHED = ()
    print(json.dumps([name, best < 0.005, touched, threading.active_count()]))
"""


@pytest.mark.promise(87)
def test_constructing_a_client_for_each_request_takes_less_than_5_ms_and_touches_nothing(run_python: Any) -> None:
    ran = run_python(CONSTRUCT, json.dumps(CLIENTS))
    assert ran.returncode == 0, ran.stderr
    assert [json.loads(line) for line in ran.stdout.splitlines()] == [[name, True, [], 1] for name, _, _ in CLIENTS]
