"""The report of a run: JSON with a schema, a verdict that says how much was claimed, and Markdown tables.

A report carries the list of the cases of its suite and a digest over everything it says; `verify.py` checks both.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from hashlib import sha256
from importlib.metadata import entry_points, packages_distributions, version
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, computed_field

from openproto.models import OMP_VERSION, VERBS
from openproto.registry import GROUP
from openproto_conformance.case import Level
from openproto_conformance.execute import ALL_WORK, SuiteRun
from openproto_conformance.faces import Face
from openproto_conformance.outcome import Outcome, Result

Verdict: TypeAlias = Literal["conforms", "deviates", "incomplete", "fails"]

SYMBOLS: dict[str, str] = {"conforms": "✓", "deviates": "~", "incomplete": "?", "fails": "✗"}
KEPT = ("passed", "refused", "unseen", "nonstrict")


class Listing(BaseModel):
    """Which suite it was: its version, every case and history on each face, and a digest of what they ask."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)

    version: str
    digest: str
    work: tuple[str, ...]


@cache
def this_suite() -> Listing:
    """Return the listing of the suite that is installed."""
    asked = [[str(work), work.case.level, work.case.sentence] for work in ALL_WORK]
    work = tuple(str(work) for work in ALL_WORK)
    return Listing(version=version("openproto"), digest=digest_of({"asked": asked}), work=work)


def digest_of(values: Mapping[str, Any]) -> str:
    """Return the SHA-256 of JSON values, whatever their order and their spacing in a file."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


class Entry(BaseModel):
    """One case on one face."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)

    case: str
    area: str
    face: Face
    level: Level
    sentence: str
    outcome: Outcome = "missing"
    seconds: float = 0.0
    detail: str = ""
    hint: str = ""
    measures: dict[str, float] = Field(default_factory=dict)

    @classmethod
    def of(cls, result: Result) -> Entry:
        """Return the entry of a result; the hint stands only beside what went wrong."""
        case = result.work.case
        return cls(
            case=case.name,
            area=case.area,
            face=result.work.face,
            level=case.level,
            sentence=case.sentence,
            outcome=result.outcome,
            seconds=result.seconds,
            detail=result.detail,
            hint="" if result.outcome in ("passed", "refused", "unseen") else case.hint,
            measures=result.measures,
        )

    @property
    def work(self) -> str:
        """How the suite's listing names it."""
        return f"{self.area}/{self.case}[{self.face}]"


class Report(BaseModel):
    """What one provider did on the whole suite. The verdict is computed, also when a file is read."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)

    provider: str
    provider_version: str | None = None
    protocol: str = OMP_VERSION
    suite: Listing = Field(default_factory=this_suite)
    quick: bool = False
    seed: int = 0
    verbs: list[str] = Field(default_factory=list)
    features: dict[str, Any] = Field(default_factory=dict)
    cancellation: str = "?"
    problem: str | None = None
    cases: list[Entry]

    @classmethod
    def of(cls, run: SuiteRun, provider: str = "?") -> Report:
        """Return the report of a run; `provider` names what never opened and so could not name itself."""
        claims = run.capabilities
        details: dict[str, Any] = {}
        if claims is not None:
            details = {
                "verbs": [verb for verb in VERBS if verb in claims.verbs],
                "features": claims.features.to_wire(),
                "cancellation": claims.x_openproto.cancellation,
            }
        return cls(
            provider=claims.provider if claims else provider,
            provider_version=_version_of(run.provider_module),
            quick=run.quick,
            seed=run.seed,
            problem=run.problem,
            cases=[Entry.of(result) for result in run.results.values()],
            **details,
        )

    @computed_field  # type: ignore[prop-decorator]
    @property
    def verdict(self) -> Verdict:
        """`conforms`, `deviates` (declared failures only), `incomplete` (something was not tried), or `fails`."""
        return verdict_of(self.cases) if not self.problem else "fails"

    @computed_field  # type: ignore[prop-decorator]
    @property
    def tally(self) -> dict[str, int]:
        """How many of each outcome."""
        return dict(sorted(Counter(entry.outcome for entry in self.cases).items()))

    @computed_field  # type: ignore[prop-decorator]
    @property
    def digest(self) -> str:
        """Holds as long as nobody changes what the report says."""
        return digest_of(self.model_dump(mode="json", exclude={"digest"}))

    @property
    def headline(self) -> str:
        """The verdict and what it stands for: `conforms · 9/9 verbs · cancellation native`."""
        parts = [self.verdict, f"{len(self.verbs)}/{len(VERBS)} verbs", f"cancellation {self.cancellation}"]
        unseen = self.tally.get("unseen", 0)
        return " · ".join(parts + [f"{unseen} unseen"] * bool(unseen) + ["quick"] * self.quick)

    @property
    def exit_status(self) -> int:
        """0 only where nothing failed and nothing is missing."""
        return 0 if self.verdict in ("conforms", "deviates") else 1

    def map_texts(self, change: Callable[[str], str]) -> Report:
        """Return the same report with `change` applied to every text that holds an error's words."""
        cases = [entry.model_copy(update={"detail": change(entry.detail)}) for entry in self.cases]
        return self.model_copy(update={"cases": cases, "problem": self.problem and change(self.problem)})

    def timeless(self) -> Report:
        """Return the same report without seconds and figures: what two runs on one backend have in common."""
        cases = [entry.model_copy(update={"seconds": 0.0, "measures": {}}) for entry in self.cases]
        return self.model_copy(update={"cases": cases})

    def troubles(self) -> list[Entry]:
        """Return the entries that are not as they should be."""
        return [entry for entry in self.cases if entry.outcome not in ("passed", "refused", "unseen")]

    def to_markdown(self) -> str:
        """Return a table by area, and below it each trouble with what to look at."""
        lines = [f"**{self.provider}**: {self.headline}", ""]
        if self.problem:
            lines += [f"Problem: {self.problem}", ""]
        lines += ["| area | kept | of | not kept |", "|---|---|---|---|"]
        for area, entries in self.by_area().items():
            kept = sum(entry.outcome in KEPT for entry in entries)
            wrong = Counter(entry.outcome for entry in entries if entry.outcome not in KEPT)
            words = ", ".join(f"{count} {outcome}" for outcome, count in sorted(wrong.items()))
            lines.append(f"| {area} | {kept} | {len(entries)} | {words} |")
        for entry in self.troubles():
            if not self.problem and entry.outcome != "missing":
                lines += ["", f"- **{entry.case}** [{entry.face}] {entry.outcome}: {entry.sentence}"]
                lines += [f"  {entry.detail}", f"  Look at: {entry.hint}"]
        return "\n".join(lines) + "\n"

    def by_area(self) -> dict[str, list[Entry]]:
        """Return the entries of each area, in the suite's order."""
        areas: dict[str, list[Entry]] = {}
        for entry in self.cases:
            areas.setdefault(entry.area, []).append(entry)
        return areas


class ReportFile(BaseModel):
    """What `--report FILE` writes: one report for each provider that was tried."""

    reports: list[Report]


def write_reports(path: Path, reports: Sequence[Report]) -> None:
    """Write the file, which is whole at every moment; an OSError says why it cannot be written."""
    text = ReportFile(reports=list(reports)).model_dump_json(indent=1) + "\n"
    if path.exists() and not path.is_file():  # a device or a pipe cannot be replaced
        path.write_text(text, encoding="utf-8")
        return
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def schema() -> str:
    """Return the JSON Schema of a report file, as `report.schema.json` holds it."""
    return json.dumps(ReportFile.model_json_schema(mode="serialization"), indent=1) + "\n"


def to_matrix(reports: Iterable[Report]) -> str:
    """Return a Markdown table with a column for each provider: what it claims, and how it did in each area."""
    columns = list(reports)
    areas = list(dict.fromkeys(entry.area for report in columns for entry in report.cases))
    rows = [
        ["", *(report.provider for report in columns)],
        ["---"] * (len(columns) + 1),
        ["verdict", *(report.verdict + " (quick)" * report.quick for report in columns)],
        ["verbs", *(f"{len(report.verbs)}/{len(VERBS)}" for report in columns)],
        ["cancellation tier", *(report.cancellation for report in columns)],
        *([area, *(_cell(report.by_area().get(area, [])) for report in columns)] for area in areas),
    ]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _cell(entries: list[Entry]) -> str:
    kept = sum(entry.outcome in KEPT for entry in entries)
    return f"{SYMBOLS[verdict_of(entries)]} {kept}/{len(entries)}"


def verdict_of(entries: Iterable[Entry]) -> Verdict:
    """Return what some entries come to."""
    outcomes = {entry.outcome for entry in entries}
    if "failed" in outcomes:
        return "fails"
    if "missing" in outcomes or not outcomes:
        return "incomplete"
    return "deviates" if "deviated" in outcomes else "conforms"


@cache  # installed packages are read for it, and a report is made after every area
def _version_of(module: str) -> str | None:
    """Return the version of the distribution that holds the provider's module."""
    package = module.partition(".")[0]
    for point in entry_points(group=GROUP):
        if point.dist is not None and point.module.partition(".")[0] == package:
            return point.dist.version
    owners = packages_distributions().get(package) if package else None  # reads what every distribution holds
    return version(owners[0]) if owners else None
