"""Trying cases: each in a thread, a loop, and with users of its own, with a look for leaks around it."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections import Counter
from collections.abc import Iterable

from openproto import Capabilities
from openproto_conformance.backend import Backend
from openproto_conformance.bench import Bench
from openproto_conformance.bounded import LOOP_ENDED, Ended, run_bounded
from openproto_conformance.cases import CASES
from openproto_conformance.checks import Violation
from openproto_conformance.conduct import Printed, lasting_threads
from openproto_conformance.leaks import Snapshot
from openproto_conformance.loops import sync_loop
from openproto_conformance.outcome import Result, Work
from openproto_conformance.refusals import check_refused, undeclared_features, undeclared_verbs

# Ids and invented users differ from run to run, and two reports of one fault should not.
_USER = r"(?<![0-9A-Za-z])[0-9a-f]{20}(?![0-9a-f])"
_ID = r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b"
_NAMED = re.compile(f"(?P<user>{_USER})|(?P<id>{_ID})")

MOST_HANGS = 3
"""After so many cases that ran out of time, the backend is taken to hang, and the rest stay untried."""

WARM_UP_SECONDS = 30.0

ALL_WORK = tuple(Work(case, face) for case in CASES for face in case.faces)


class SuiteRun:
    """One run of the suite against one backend; every piece of work starts as `missing`."""

    def __init__(self, *, quick: bool = False, seed: int = 0, work: Iterable[Work] = ALL_WORK) -> None:
        self.quick = quick
        self.seed = seed
        self.results = {piece: Result(piece) for piece in work}
        self.capabilities: Capabilities | None = None
        self.provider_module = ""
        self.problem: str | None = None
        self.opening_error: BaseException | None = None
        self.complaints: list[str] = []
        """What the first opening left behind; the first case fails for it."""
        self._warm = False
        self._noting = threading.Lock()

    def execute(self, backend: Backend, work: Work) -> Result:
        """Try one piece of work, note its result, and return it."""
        if not self._warm:
            self.warm_up(backend)
        if self.problem:
            return self.note(Result(work, detail=self.problem))
        return self.note(self._execute(backend, work))

    def note(self, result: Result) -> Result:
        """Note what came of a piece of work, here or in another process, and return what counts.

        Where it makes no sense to go on, what stands later in the suite counts as not tried, whenever it was.
        """
        with self._noting:
            self.results[result.work] = result
            hung: list[str] = []
            given_up = ""
            for work, known in self.results.items():
                if given_up and known.outcome != "missing":
                    self.results[work] = Result(work, detail=given_up)
                hung += [str(work)] * known.hung
                if not given_up and known.exited:
                    self.problem = given_up = f"given up: {LOOP_ENDED}"
                elif not given_up and len(hung) >= MOST_HANGS:
                    hangs = "the backend, or the provider, hangs"
                    self.problem = given_up = (
                        f"given up: {MOST_HANGS} cases did not end in time, and so {hangs}: {', '.join(hung)}"
                    )
        return self.results[result.work]

    def _execute(self, backend: Backend, work: Work) -> Result:
        started = time.monotonic()
        before, tasks_before = Snapshot.take(), _background_tasks()
        measures: dict[str, float] = {}
        refused: list[str] = []

        bench = Bench(backend, work.case.name, work.face, quick=self.quick, seed=self.seed)

        async def main() -> None:
            async with bench:
                bench.measures = measures
                refused.extend(await _run_or_refuse(bench, work))

        with Printed() as printed:
            ended = run_bounded(main, work.case.seconds * backend.patience)
        if ended.error is None:
            ended.leaks += before.leaked_since() + _new_background_tasks(tasks_before)
            ended.leaks += printed.complaint + self.complaints
            self.complaints = []
        hung = ended.hung or _ran_out_of_time(ended.error)
        if hung:
            # The client's own limit names the verb in its error; what that did not end stands on a loop.
            stuck = f"{ended.under_way or 'no call'} under way, " if ended.hung else ""
            ended.error = Violation(f"{ended.error}: {stuck}{bench.calls_ended} calls had ended")
        result = _result(backend, work, ended, refused, measures, time.monotonic() - started)
        result.hung, result.exited = hung, not sync_loop().is_running()
        if result.outcome == "passed" and bench.lacking:
            result.outcome = "unseen"
            result.detail = f"as far as can be seen without the hook {' and '.join(sorted(bench.lacking))}"
        return result

    def warm_up(self, backend: Backend) -> None:
        """Open the backend once on each face: what it keeps for good is no leak, and whether it can be had is told."""
        self._warm = True
        sync_loop()
        threads = threading.enumerate()

        async def main() -> None:
            for face in ("async", "sync"):
                async with Bench(backend, CASES[0].name, face, quick=self.quick) as bench:
                    self.capabilities = bench.capabilities
                    self.provider_module = type(bench.provider_of(bench.client)).__module__

        with Printed() as printed:
            ended = run_bounded(main, WARM_UP_SECONDS * backend.patience)
        self.complaints = printed.complaint + lasting_threads(threads)
        if ended.error is not None:
            self.opening_error = ended.error
            self.problem = f"the provider could not be opened: {_describe(ended.error)}"


def _ran_out_of_time(error: BaseException | None) -> bool:
    """Whether a call did not end in time, also where the case had expected another error of it."""
    return isinstance(error, TimeoutError) or isinstance(error and error.__cause__, TimeoutError)


async def _run_or_refuse(bench: Bench, work: Work) -> list[str]:
    """Run the case, or check that what it needs is refused; return what was refused."""
    if verbs := undeclared_verbs(bench, work.case):
        for verb in verbs:
            await check_refused(bench, verb, is_verb=True)
        return [*verbs]
    if features := undeclared_features(bench, work.case):
        for feature in features:
            await check_refused(bench, feature, is_verb=False)
        return [*features]
    await work.case.body(bench)
    return []


def _result(
    backend: Backend, work: Work, ended: Ended, refused: list[str], measures: dict[str, float], seconds: float
) -> Result:
    error = ended.error
    if error is None and ended.leaks:
        error = Violation(f"left behind: {', '.join(ended.leaks)}")
    case = work.case
    known = backend.deviations.get(f"{case.name}[{work.face}]") or backend.deviations.get(case.name)
    result = Result(work, "passed", "", round(seconds, 3), measures)
    if error is not None:
        error.add_note(f"{case.sentence}\nLook at: {case.hint}")
        result.error = error
        result.detail = _describe(error)
        result.outcome = "deviated" if known else "nonstrict" if case.level == "should" else "failed"
        if known:
            result.detail = f"{known} ({result.detail})"
    elif known:
        result.outcome = "failed"
        result.detail = f"deviations says {known!r}, but it passes: remove the entry"
    elif refused:
        result.outcome, result.detail = "refused", f"not declared, and refused: {', '.join(refused)}"
    return result


def _describe(error: BaseException) -> str:
    text = str(error) if isinstance(error, Violation) else f"{type(error).__name__}: {error}"
    if isinstance(error, SystemExit):
        text = f"the provider raised SystemExit({error}), as sys.exit does"
    return numbered(text)


def numbered(text: str) -> str:
    """Return the text with its ids and invented users numbered in the order in which they first stand there."""
    names: dict[str, str] = {}
    counts: Counter[str] = Counter()

    def name(match: re.Match[str]) -> str:
        kind = match.lastgroup or ""
        if match.group() not in names:
            counts[kind] += 1
            names[match.group()] = f"<{kind} {counts[kind]}>"
        return names[match.group()]

    return _NAMED.sub(name, text)


def _background_tasks() -> Counter[str]:
    """Count the tasks of the loop that every sync `Memory` shares."""
    names = (getattr(task.get_coro(), "__qualname__", "?") for task in asyncio.all_tasks(sync_loop()))
    return Counter(names)


def _new_background_tasks(before: Counter[str], grace: float = 2.0) -> list[str]:
    deadline = time.monotonic() + grace
    while (new := _background_tasks() - before) and time.monotonic() < deadline:
        time.sleep(0.01)
    return [f"{count} x task {name} on Memory's loop" for name, count in sorted(new.items())]
