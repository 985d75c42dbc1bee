"""What every benchmark shares: figures with bounds, timing of several sides in turn, and the options of a run."""

from __future__ import annotations

import asyncio
import gc
import math
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any, TypeAlias

from rich.console import Console
from rich.progress import Progress

Detail: TypeAlias = dict[str, Any]
Step: TypeAlias = Callable[[int], Awaitable[object]]
Seconds: TypeAlias = list[float]


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number; `ok` is None where no bound is judged, `value` is None where nothing was measured."""

    name: str
    value: float | None
    unit: str
    bound: str
    ok: bool | None
    detail: Detail = field(default_factory=dict)

    @classmethod
    def of_runs(cls, runs: Sequence[Figure]) -> Figure:
        """Return one figure for several runs of a benchmark: the median, and met only if each run meets the bound."""
        values = [run.value for run in runs]
        measured = sorted(value for value in values if value is not None)
        verdicts = {run.ok for run in runs}
        middle = next((run for run in runs if measured and run.value == measured[len(measured) // 2]), runs[0])
        ok = False if False in verdicts else middle.ok
        return replace(middle, ok=ok, detail={**middle.detail, "runs": values})

    def to_json(self) -> Detail:
        """Return the figure as the JSON file holds it."""
        return asdict(self)


def at_most(name: str, value: float, limit: float, unit: str = "", **detail: Any) -> Figure:
    """Return a figure that must not exceed `limit`."""
    return Figure(name, value, unit, f"<= {limit:g}", value <= limit, detail)


def next_to(
    name: str, point: Callable[[Sequence[float]], float], ours: Sequence[float], control: Sequence[float], limit: float
) -> Figure:
    """Return a figure of seconds next to those of a control: a point of ours through the same of the control."""
    told = {"ours_ms": spread(ours, 1e3), "control_ms": spread(control, 1e3)}
    return at_most(name, point(ours) / point(control), limit, "x", **told)


def p90(values: Sequence[float]) -> float:
    """Return the 90th percentile."""
    return percentile(values, 0.9)


def at_least(name: str, value: float, limit: float, unit: str = "", **detail: Any) -> Figure:
    """Return a figure that must reach `limit`."""
    return Figure(name, value, unit, f">= {limit:g}", value >= limit, detail)


def below(name: str, value: float, limit: float, unit: str = "", **detail: Any) -> Figure:
    """Return a figure that must stay below `limit`."""
    return Figure(name, value, unit, f"< {limit:g}", value < limit, detail)


def above(name: str, value: float, limit: float, unit: str = "", **detail: Any) -> Figure:
    """Return a figure that must exceed `limit`."""
    return Figure(name, value, unit, f"> {limit:.3g}", value > limit, detail)


def for_information(name: str, value: float, unit: str = "", **detail: Any) -> Figure:
    """Return a figure without a bound."""
    return Figure(name, value, unit, "", None, detail)


def not_run(name: str, why: str) -> Figure:
    """Return the place of a figure that could not be measured."""
    return Figure(name, None, "", "", None, {"not_run": why})


def failed(name: str, error: Exception) -> Figure:
    """Return the place of figures whose benchmark broke down."""
    return Figure(name, None, "", "", False, {"failed": f"{type(error).__name__}: {error}"})


class Watch:
    """Says on stderr what is going on."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)

    def say(self, text: str) -> None:
        """Print one line."""
        self._console.print(text, markup=False)

    @contextmanager
    def steps(self, title: str, total: int) -> Iterator[Callable[[int], None]]:
        """Show a bar; call what is yielded with the number of steps just done."""
        with Progress(console=self._console) as progress:
            task = progress.add_task(title, total=total)
            yield lambda done: progress.advance(task, done)


@dataclass(frozen=True, slots=True)
class Bench:
    """The options of a run: `size(full, quick)` chooses between the sizes of the two kinds of run."""

    url: str
    folder: Path
    quick: bool
    locomo: Path | None
    watch: Watch

    def size(self, full: int, quick: int) -> int:
        """Return how much to do."""
        return quick if self.quick else full


async def take_turns(sides: Mapping[str, Step], rounds: int, *, warm: int = 0, rest: float = 0.0) -> dict[str, Seconds]:
    """Call every side once a round, each round in another order, and return the seconds of every call.

    Each step gets the number of its round. What the machine does besides strikes all sides alike. The first `warm`
    rounds are not counted. What a side does after its answer is done in the `rest` seconds before the next.
    """
    took: dict[str, Seconds] = {name: [] for name in sides}
    names = list(sides)
    with uncollected():
        for turn in range(warm + rounds):
            shift = turn % len(names)
            for name in names[shift:] + names[:shift]:
                await asyncio.sleep(rest)
                start = time.perf_counter()
                await sides[name](turn)
                if turn >= warm:
                    took[name].append(time.perf_counter() - start)
    return took


@contextmanager
def uncollected() -> Iterator[None]:
    """Keep what exists already, which is the benchmark's own, out of the garbage collector's rounds."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that `share` of the values do not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def spread(values: Sequence[float], scale: float = 1.0) -> Detail:
    """Return median, 99th percentile and largest of the values, each multiplied by `scale`."""
    found = {"p50": median(values), "p99": percentile(values, 0.99), "max": max(values)}
    return {name: round(value * scale, 4) for name, value in found.items()} | {"samples": len(values)}


def median_ratio(above: Sequence[float], beneath: Sequence[float]) -> float:
    """Return the median of the ratios of two series taken in turn."""
    return median(a / b for a, b in zip(above, beneath, strict=True))
