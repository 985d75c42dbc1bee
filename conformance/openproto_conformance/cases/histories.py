"""Histories: every answer of a sequence of calls is the model's."""

from __future__ import annotations

import asyncio
from random import Random

from openproto_conformance.bench import Bench
from openproto_conformance.case import Area
from openproto_conformance.checks import Violation
from openproto_conformance.faces import FACES, Face
from openproto_conformance.histories import values
from openproto_conformance.histories.author import Author
from openproto_conformance.histories.player import Difference, Player
from openproto_conformance.histories.shrink import shortest
from openproto_conformance.histories.steps import History, program
from openproto_conformance.histories.theme import Theme
from openproto_conformance.histories.themes import THEMES

area = Area("histories")

HISTORIES, QUICK = 10, 5
SYNC_HISTORIES, SYNC_QUICK = 4, 1
"""Fewer on the other face: the store behind it is the same, and what the face itself does shows in any of them."""
STEPS, QUICK_STEPS, SYNC_QUICK_STEPS = 36, 18, 12
AT_ONCE = 5
"""Histories that are played at once, because what one of them waits for costs the others nothing; those that mostly
wait are shorter, twice as many, and all at once."""
SHRINK_SECONDS, QUICK_SHRINK_SECONDS = 12.0, 4.0


async def _try(bench: Bench, theme: Theme) -> None:
    for operation in () if theme.needs is None else (theme.needs,):
        if bench.capabilities.x_openproto.support.get(operation, "none") == "none":
            return
    sizes = (HISTORIES, QUICK) if bench.face == "async" else (SYNC_HISTORIES, SYNC_QUICK)
    count, length = bench.size(*sizes), bench.size(STEPS, QUICK_STEPS if bench.face == "async" else SYNC_QUICK_STEPS)
    length = int(length * theme.share)
    at_once = AT_ONCE
    if "cancelled" in theme.steps:
        count = at_once = 2 * count
    seeds = [bench.random.randrange(1 << 32) for _ in range(count)]
    suffixes = values.LOOK_ALIKES if theme.unicode_users else [f"user{n}" for n in range(theme.users)]
    for start in range(0, count, at_once):
        some = seeds[start : start + at_once]
        histories = [Author(Random(seed), bench.capabilities, theme).write(length) for seed in some]  # noqa: S311
        clients = [[await bench.open() for _ in range(theme.clients)] for _ in some]
        found = await asyncio.gather(
            *(Player(bench, own, suffixes, one).play() for own, one in zip(clients, histories, strict=True))
        )
        for history, difference in zip(histories, found, strict=True):
            if difference is not None:
                await _report(bench, theme, history, difference, suffixes)
        for own in clients:
            for client in own:
                await client.close()


async def _report(
    bench: Bench, theme: Theme, history: History, found: Difference, suffixes: list[str] | tuple[str, ...]
) -> None:
    """Shrink what was found and raise it, with the program that shows it."""
    clients = [await bench.open() for _ in range(theme.clients)]

    async def play(candidate: History) -> Difference | None:
        return await Player(bench, clients, suffixes, candidate).play()

    seconds = bench.size(int(SHRINK_SECONDS), int(QUICK_SHRINK_SECONDS)) * bench.backend.patience
    short, difference = await shortest(history, found, play, seconds)
    text = program(short, suffixes, bench.capabilities.provider)
    raise Violation(f"{difference}\nwith seed {bench.seed}, {len(short)} of {len(history)} steps show it:\n\n{text}")


def _case(theme: Theme) -> None:
    async def body(bench: Bench) -> None:
        await _try(bench, theme)

    body.__name__, body.__doc__ = theme.name, theme.sentence
    faces: tuple[Face, ...] = ("async",) if "cancelled" in theme.steps else FACES
    area.case(*theme.verbs, hint=theme.hint, features=theme.features, faces=faces, seconds=300.0)(body)


for _theme in THEMES:
    _case(_theme)
