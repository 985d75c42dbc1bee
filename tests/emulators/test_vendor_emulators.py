"""Each hosted vendor's emulator: every route answers as the vendor was seen to, and as its OpenAPI document says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from documented_exchanges import LETTA, MEM0, REFUSED, SUPERMEMORY
from openproto_conformance.emulators import Answer, Emulator
from openproto_conformance.emulators.registry import EMULATORS, emulator_class
from openproto_conformance.emulators.routes import routes_of
from player import Ask, Player, Step
from undocumented_exchanges import MEMORYSYNC, MEMSY

EXCHANGES: dict[str, tuple[Step, ...]] = {
    "letta": LETTA,
    "mem0": MEM0,
    "memorysync": MEMORYSYNC,
    "memsy": MEMSY,
    "supermemory": SUPERMEMORY,
}
BROKEN: dict[str, Ask] = {
    "letta": Ask("POST /v1/archives/", {"name": "ann"}, status=599),
    "mem0": Ask("POST /v3/memories/", {"filters": {"user_id": "ann"}}, status=599),
    "supermemory": Ask("GET /ns/ada/document/one", status=599),
}


@pytest.fixture
def emulator(name: str) -> Iterator[Emulator]:
    with emulator_class(name)() as running:
        yield running


@pytest.mark.parametrize("name", EXCHANGES)
def test_an_emulator_answers_on_every_route_as_its_vendor_does(name: str, emulator: Emulator) -> None:
    player = Player(emulator)
    player.play(EXCHANGES[name])
    assert emulator.violations == []
    assert player.succeeded == {str(route) for route in routes_of(type(emulator))}


@pytest.mark.parametrize("name", REFUSED)
def test_forbidden_requests_are_refused(name: str, emulator: Emulator, documented: Callable[[Emulator], None]) -> None:
    documented(emulator)
    Player(emulator).play(REFUSED[name])
    assert emulator.violations == []


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("body", [{"id": 7}, {"results": [{"id": 7}]}])
def test_forbidden_answers_are_caught(
    name: str, emulator: Any, documented: Callable[[Emulator], None], body: Any
) -> None:
    documented(emulator)
    emulator._handled = lambda route, request: Answer(200, body)
    Player(emulator).ask(BROKEN[name])
    (violation,) = emulator.violations
    assert violation.startswith(f"{BROKEN[name].route.partition('/ns')[0].strip()}")


def test_every_emulator_has_its_exchanges() -> None:
    assert {*EXCHANGES, "memori"} == {*EMULATORS}
