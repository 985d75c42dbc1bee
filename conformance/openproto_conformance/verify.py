"""Reading reports: one that was edited, cut, invented, or made by another suite is refused with one sentence."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from openproto_conformance.case import Case
from openproto_conformance.execute import ALL_WORK
from openproto_conformance.report import Entry, Report, ReportFile, digest_of, this_suite

_RUN_AGAIN = "run the suite again for a report of this one"

CHECKED = (
    "it is a report of the installed suite, version {version} ({digest:.12})",
    "each of its {number} cases and histories on each face is there once, and nothing else is",
    "the verdict, the tally, and what was refused follow from the outcomes and from what the provider declared",
    "the digest over all of it holds: nothing was changed since it was written",
)
UNKNOWABLE = (
    "whether the run took place: who can write a report can write its digest",
    "whether the provider that ran is the one that bears this name and version",
    "whether the backend would answer the same today",
)


class UntrustedReport(ValueError):
    """A file that is no report of this suite, or no longer the one that was written."""


def read_reports(path: Path) -> list[Report]:
    """Return the reports of a file; an UntrustedReport says what is wrong, an OSError why it cannot be read."""
    try:
        raw = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        raise UntrustedReport(f"{path} is not a conformance report: it does not hold JSON, or not all of it") from None
    entries = raw.get("reports") if isinstance(raw, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise UntrustedReport(f"{path} is not a conformance report: it has no list of reports")
    if not entries:
        raise UntrustedReport(f"{path} is empty: it holds no report")
    for entry in entries:
        if complaint := _suite_complaint(entry):
            raise UntrustedReport(f"{path}: {complaint}")
    try:
        reports = ReportFile.model_validate(raw).reports
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise UntrustedReport(f"{path} is not a conformance report: {where}: {first['msg']}") from None
    for entry, report in zip(entries, reports, strict=True):
        if complaint := _complaint(entry, report):
            raise UntrustedReport(f"{path}: the report of {report.provider!r} {complaint}")
    return reports


def _suite_complaint(raw: dict[str, Any]) -> str:
    """Say why a report is not of this suite, or nothing."""
    suite = raw.get("suite")
    if not isinstance(suite, dict) or not suite.get("work"):
        return f"a report carries no list of its cases and histories, as those of an older suite do; {_RUN_AGAIN}"
    own, other = this_suite(), str(suite.get("version"))
    if other != own.version:
        if _numbers(other) > _numbers(own.version):
            return f"a report was written by suite {other}, newer than this one ({own.version}); upgrade openproto"
        return f"a report was written by suite {other}, and this is {own.version}; {_RUN_AGAIN}"
    if suite.get("digest") != own.digest or suite["work"] != list(own.work):
        return f"a report lists other cases or histories than suite {own.version} has here; {_RUN_AGAIN}"
    return ""


def _complaint(raw: dict[str, Any], report: Report) -> str:
    """Say what of the report contradicts the rest of it, or nothing."""
    counted = Counter(entry.work for entry in report.cases)
    known = dict.fromkeys(report.suite.work)
    cases = {str(work): work.case for work in ALL_WORK}
    if unknown := [work for work in counted if work not in known]:
        return f"names {unknown[0]!r}, which is no case of its suite"
    if absent := [work for work in known if work not in counted]:
        return f"was cut: {len(absent)} of {len(known)} cases are absent, {absent[0]!r} among them"
    if twice := [work for work, number in counted.items() if number > 1]:
        return f"holds {twice[0]!r} twice"
    for entry in report.cases:
        if complaint := _entry_complaint(entry, cases[entry.work], report):
            return complaint
    for name in ("verdict", "tally"):
        if raw.get(name) != getattr(report, name):
            return f"was edited: its {name} does not follow from its outcomes"
    if raw.get("digest") != digest_of({name: value for name, value in raw.items() if name != "digest"}):
        return "was edited: the digest over it does not hold"
    return ""


def _entry_complaint(entry: Entry, case: Case, report: Report) -> str:
    if (entry.level, entry.sentence) != (case.level, case.sentence):
        return f"was edited: {entry.work!r} asks something else than its suite does"
    undeclared: list[str] = [verb for verb in case.verbs if verb not in report.verbs]
    undeclared += [name for name in case.features if report.features.get(name) in (False, "none", None)]
    if entry.outcome == "refused" and not undeclared:
        return f"was edited: {entry.work!r} is said to be refused, and all that it needs is declared"
    if entry.outcome in ("passed", "unseen") and undeclared:
        return f"was edited: {entry.work!r} is said to have passed, and {undeclared[0]!r} is not declared"
    return ""


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".") if part.isdigit()]


def checked(report: Report) -> list[str]:
    """Return in words what was checked of a report that `read_reports` returned."""
    suite = report.suite
    return [text.format(version=suite.version, digest=suite.digest, number=len(suite.work)) for text in CHECKED]


def differences(old: Report, new: Report) -> list[str]:
    """Return what two runs do not have in common: what was declared, and each case that came out otherwise."""
    told = [
        f"{name}: {getattr(old, name)!r} in the report, {getattr(new, name)!r} now"
        for name in ("provider", "provider_version", "quick", "seed", "verbs", "features", "cancellation", "problem")
        if getattr(old, name) != getattr(new, name)
    ]
    now = {entry.work: entry for entry in new.cases}
    told += [
        f"{entry.work}: {entry.outcome} in the report, {_outcome(now[entry.work])} now"
        for entry in old.cases
        if entry.outcome != now[entry.work].outcome
    ]
    return told


def _outcome(entry: Entry) -> str:
    return f"{entry.outcome} ({entry.detail})" if entry.outcome in ("failed", "deviated") else entry.outcome
