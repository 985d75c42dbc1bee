"""What the command shows: how far the run is and what fails, as it does; then the table, the troubles, the verdict."""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from openproto.cli.clean import clean, clean_line
from openproto.cli.output import Output, count
from openproto_conformance.outcome import Result, Work
from openproto_conformance.report import KEPT, SYMBOLS, Entry, Report, ReportFile, verdict_of

_STYLES = {"conforms": "bold green", "deviates": "bold yellow", "incomplete": "bold yellow", "fails": "bold red"}
_MARKS = {"failed": ("✗", "red"), "deviated": ("~", "yellow"), "nonstrict": ("!", "yellow")}


@contextmanager
def progress(out: Output, work: Sequence[Work]) -> Iterator[Callable[[Result], None]]:
    """Yield what is to be told of each result: a bar on a terminal, a line for each area elsewhere; all on stderr."""
    if out.as_json or not sys.stderr.isatty():
        yield _Lines(out, work)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description:14}"), BarColumn(), MofNCompleteColumn())
    bar = Progress(
        *columns,
        TimeElapsedColumn(),
        TextColumn("{task.fields[failed]}", style="red"),
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=False,
    )
    with bar:
        areas = [piece.case.area for piece in work]
        task = bar.add_task(areas[0], total=len(work), failed="")
        done = failed = 0

        def tell(result: Result) -> None:
            nonlocal done, failed
            if result.outcome == "failed":
                bar.console.print(out.text(_failure(result), "red"), soft_wrap=True)
            done, failed = done + 1, failed + (result.outcome == "failed")
            now = areas[min(done, len(areas) - 1)]
            bar.update(task, completed=done, description=now, failed=f"{failed} failed" if failed else "")

        yield tell


def _failure(result: Result) -> str:
    case = result.work.case
    what, *_ = result.detail.splitlines() or [""]  # the program that shows it stands at the end and in the report
    return f"✗ {case.name}[{result.work.face}] failed: {clean_line(what)}"


class _Lines:
    """Says a line about each failure as it happens, and about each area as it ends."""

    def __init__(self, out: Output, work: Sequence[Work]) -> None:
        self._out = out
        self._left = Counter(piece.case.area for piece in work)
        self._total = len(work)
        self._done = 0
        self._outcomes: defaultdict[str, Counter[str]] = defaultdict(Counter)

    def __call__(self, result: Result) -> None:
        area = result.work.case.area
        self._done += 1
        self._left[area] -= 1
        self._outcomes[area][result.outcome] += 1
        if result.outcome == "failed":
            self._out.note(_failure(result))
        if not self._left[area]:
            words = ", ".join(f"{number} {outcome}" for outcome, number in sorted(self._outcomes[area].items()))
            self._out.note(f"[{self._done}/{self._total}] {area}: {words}")


def show(out: Output, report: Report, *, markdown: bool) -> None:
    """Print a report: for programs, as Markdown, or for people."""
    if out.as_json:
        out.json(ReportFile(reports=[report]).model_dump(mode="json"))
    elif markdown:
        sys.stdout.write(clean(report.to_markdown()))
    else:
        out.table(("", "area", "kept", "of", "not kept", "seconds"), [_row(*item) for item in report.by_area().items()])
        for entry in report.troubles():
            if entry.outcome in _MARKS:
                _show_trouble(out, entry)
        _show_verdict(out, report)


def show_differences(out: Output, new: Report, told: Sequence[str]) -> None:
    """Print in what a new report differs from the one that was to be verified."""
    if out.as_json:
        out.json({"differences": list(told), **ReportFile(reports=[new]).model_dump(mode="json")})
        return
    for text in told:
        out.line(f"✗ {clean_line(text)}", "red")
    same = "the same again" if not told else count(len(told), "difference")
    out.line(f"{new.provider}: {new.headline}: {same}", _STYLES["fails" if told else new.verdict])


def _row(area: str, entries: list[Entry]) -> tuple[str, ...]:
    kept = sum(entry.outcome in KEPT for entry in entries)
    wrong = Counter(entry.outcome for entry in entries if entry.outcome not in KEPT)
    words = ", ".join(f"{number} {outcome}" for outcome, number in sorted(wrong.items()))
    seconds = sum(entry.seconds for entry in entries)
    return SYMBOLS[verdict_of(entries)], area, str(kept), str(len(entries)), words, f"{seconds:.1f}"


def _show_trouble(out: Output, entry: Entry) -> None:
    mark, style = _MARKS[entry.outcome]
    out.line(f"\n{mark} {entry.case}[{entry.face}] {entry.outcome}: {clean_line(entry.sentence)}", style)
    what, *program = clean(entry.detail).splitlines() or [""]
    out.line("\n".join([f"  {what}", *program]))
    out.line(f"  look at: {clean_line(entry.hint)}")


def _show_verdict(out: Output, report: Report) -> None:
    out.line("")
    if report.problem:
        out.line(f"problem: {clean_line(report.problem)}", "red")
    if missing := report.tally.get("missing"):
        out.line(f"{missing} of {count(len(report.cases), 'case')} were not tried")
    out.line(f"seed {report.seed}")
    out.line(f"{report.provider}: {report.headline}", _STYLES[report.verdict])
