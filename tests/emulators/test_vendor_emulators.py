"""Each hosted vendor's emulator: every route answers as the vendor was seen to, and as its OpenAPI document says."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from documented_exchanges import LETTA, MEM0, REFUSED, SUPERMEMORY
from openproto_conformance.emulators import Emulator
from openproto_conformance.emulators.registry import EMULATORS, emulator_class
from openproto_conformance.emulators.routes import routes_of
from player import Player, Step
from undocumented_exchanges import MEMORYSYNC, MEMSY

EXCHANGES: dict[str, tuple[Step, ...]] = {
    "letta": LETTA,
    "mem0": MEM0,
    "memorysync": MEMORYSYNC,
    "memsy": MEMSY,
    "supermemory": SUPERMEMORY,
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
def test_forbidden_requests_are_refused(name: str, emulator: Emulator) -> None:
    if not emulator.checks:
        pytest.skip(f"not run: {emulator.checked_against}")
    Player(emulator).play(REFUSED[name])
    assert emulator.violations == []


def test_every_emulator_has_its_exchanges() -> None:
    assert {*EXCHANGES, "memori"} == {*EMULATORS}
