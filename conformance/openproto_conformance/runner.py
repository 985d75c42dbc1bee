"""The suite without pytest: one call, a report."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, TypeAlias

from openproto import Provider
from openproto_conformance.cases import AREAS
from openproto_conformance.execute import ALL_WORK, SuiteRun
from openproto_conformance.outcome import Result, Work
from openproto_conformance.report import Report
from openproto_conformance.suite import ProviderSuite, complaint_about

if TYPE_CHECKING:
    from openproto_conformance.emulators.emulator import Emulator

Progress: TypeAlias = Callable[[Result, int, int], None]
"""Called after each piece of work with its result, how many are done, and how many there are."""


def run(
    provider_factory: Callable[[], Provider],
    *,
    only: Collection[str] = (),
    quick: bool = False,
    progress: Progress | None = None,
    deviations: Mapping[str, str] | None = None,
    patience: float = 1.0,
    seed: int = 0,
) -> Report:
    """Run the suite on what `provider_factory` returns, a new unopened provider at each call.

    `only` names the areas or cases to try; all others stay `missing`, so such a report is `incomplete` at best.
    `patience` and `seed` are those of `ProviderSuite`.
    """
    suite = suite_of(provider_factory, deviations=deviations or {}, patience=patience, seed=seed)
    return run_suite(suite, only=only, quick=quick, progress=progress)


def run_suite(
    suite: ProviderSuite, *, only: Collection[str] = (), quick: bool = False, progress: Progress | None = None
) -> Report:
    """Run the suite on an instance of a suite class."""
    chosen = work_in(only)
    suite_run = SuiteRun(quick=quick, seed=suite.seed)
    for done, work in enumerate(chosen, 1):
        result = suite_run.execute(suite, work)
        if progress is not None:
            progress(result, done, len(chosen))
    return Report.of(suite_run, type(suite).__name__)


def suite_of(
    provider_factory: Callable[[], Provider],
    *,
    deviations: Mapping[str, str],
    patience: float = 1.0,
    secrets: Sequence[str] = (),
    emulator: Emulator | None = None,
    seed: int = 0,
) -> ProviderSuite:
    """Return the suite on what `provider_factory` returns; a deviation that names no case is a TypeError.

    `secrets` are passwords and keys among the providers' options, none of which may be told.
    `emulator` is what the providers talk to, where that is emulated: it can be told to stall.
    """
    if complaint := complaint_about(deviations):
        raise TypeError(complaint)
    known, factor, number = deviations, patience, seed
    hidden = (*secrets, *([] if emulator is None else [emulator.api_key]))

    class Given(ProviderSuite):
        deviations = known
        patience = factor
        seed = number
        secrets = hidden

        def provider(self) -> Provider:
            return provider_factory()

        def stalled(self) -> AbstractContextManager[object] | None:
            return None if emulator is None else emulator.stalled()

    return Given()


def work_in(only: Collection[str]) -> list[Work]:
    """Return the work of the areas and cases named, or all of it; an unknown name is a ValueError with the nearest.

    A case is named as in `deviations`, `case` or `case[sync]`, or with its area, `area/case[sync]`.
    """
    areas = [area.name for area in AREAS]
    names = {work: _names(work) for work in ALL_WORK}
    known = {name for some in names.values() for name in some}
    for name in only:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"areas: {', '.join(areas)}"
            raise ValueError(f"no area or case {name!r}; {hint}")
    return [work for work in ALL_WORK if not only or names[work] & set(only)]


def _names(work: Work) -> set[str]:
    case = work.case
    return {case.area, case.name, f"{case.name}[{work.face}]", f"{case.area}/{case.name}", str(work)}
