"""A report that was edited, cut, invented, or written by another suite is refused; those stored are of this suite."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from openproto_conformance.execute import ALL_WORK, SuiteRun
from openproto_conformance.markers import between
from openproto_conformance.report import Entry, Report, digest_of, to_matrix, write_reports
from openproto_conformance.verify import differences, read_reports

from openproto.cli import main
from openproto.models import VERBS

FEATURES = {feature: True for work in ALL_WORK for feature in work.case.features}


@pytest.fixture
def green() -> Report:
    cases = [Entry.of(result).model_copy(update={"outcome": "passed"}) for result in SuiteRun().results.values()]
    return Report(provider="acme", verbs=list(VERBS), features=FEATURES, cancellation="native", cases=cases)


@pytest.fixture
def path(green: Report, tmp_path: Path) -> Path:
    written = tmp_path / "report.json"
    write_reports(written, [green])
    return written


def refused(path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Return the sentence with which both commands refuse a file."""
    said = []
    for command in ("verify", "matrix"):
        capsys.readouterr()
        assert main(["conformance", command, str(path)]) == 1
        printed = capsys.readouterr()
        assert printed.out == ""
        assert len(printed.err.splitlines()) == 1
        said.append(printed.err)
    assert said[0] == said[1]
    return said[0]


def test_what_a_run_wrote_is_believed_and_it_says_how_far(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["conformance", "verify", str(path)]) == 0
    said = capsys.readouterr().out
    assert "acme: conforms · 9/9 verbs · cancellation native" in said
    assert f"checked: each of its {len(ALL_WORK)} cases" in said
    assert "cannot know: whether the run took place" in said
    assert main(["conformance", "matrix", str(path)]) == 0


Change = Callable[[dict[str, Any]], object]


def contradict_under_a_new_digest(report: dict[str, Any]) -> None:
    report["cases"][3]["outcome"] = "missing"
    del report["digest"]
    report["digest"] = digest_of(report)


EDITS: dict[str, tuple[Change, str]] = {
    "a contradiction": (contradict_under_a_new_digest, "verdict does not follow"),
    "an outcome": (lambda report: report["cases"][3].update(outcome="refused"), "is said to be refused"),
    "a failure": (lambda report: report["cases"][3].update(outcome="failed"), "verdict does not follow"),
    "a detail": (lambda report: report["cases"][3].update(detail="fine"), "the digest over it does not hold"),
    "the verdict": (lambda report: report.update(verdict="deviates"), "verdict does not follow"),
    "the tally": (lambda report: report.update(tally={"passed": 3}), "tally does not follow"),
    "quick": (lambda report: report.update(quick=True), "the digest over it does not hold"),
    "the provider": (lambda report: report.update(provider="postgres"), "the digest over it does not hold"),
    "an unknown field": (lambda report: report.update(stars=5), "the digest over it does not hold"),
    "a case cut": (lambda report: report["cases"].pop(), "was cut: 1 of"),
    "a case twice": (lambda report: report["cases"].append(report["cases"][0]), "twice"),
    "a case invented": (lambda report: report["cases"][0].update(case="it_is_nice"), "which is no case of its suite"),
    "one invented case": (lambda report: report.update(cases=report["cases"][:1]), "was cut"),
    "another sentence": (lambda report: report["cases"][0].update(sentence="It runs."), "asks something else"),
    "an undeclared verb": (lambda report: report["verbs"].remove("audit"), "'audit' is not declared"),
    "a newer suite": (lambda report: report["suite"].update(version="99.0"), "newer than this one"),
    "an older suite": (lambda report: report["suite"].update(version="0.0.1"), "run the suite again"),
    "a shorter suite": (lambda report: report["suite"].update(work=report["suite"]["work"][:9]), "lists other cases"),
    "no histories": (lambda report: report.pop("suite"), "carries no list of its cases and histories"),
    "no digest": (lambda report: report.pop("digest"), "the digest over it does not hold"),
    "no cases": (lambda report: report.pop("cases"), "is not a conformance report: reports.0.cases"),
}


@pytest.mark.parametrize("edit", EDITS)
def test_a_changed_report_is_refused(edit: str, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change, sentence = EDITS[edit]
    raw = json.loads(path.read_text())
    change(raw["reports"][0])
    path.write_text(json.dumps(raw))
    assert sentence in refused(path, capsys)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "does not hold JSON"),
        ("{", "does not hold JSON"),
        ("[" * 100_000, "does not hold JSON"),
        ("\ufeff", "does not hold JSON"),
        ("[]", "no list of reports"),
        ('{"reports": 5}', "no list of reports"),
        ('{"reports": [5]}', "no list of reports"),
        ('{"reports": []}', "is empty"),
        ('{"reports": [{}]}', "carries no list"),
        ('{"reports": [{"suite": {"work": 5, "version": {}}}]}', "run the suite again"),
    ],
)
def test_what_is_no_report_is_refused(text: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    assert said in refused(path, capsys)


def test_a_report_in_another_layout_is_the_same_report(path: Path, green: Report) -> None:
    raw = json.loads(path.read_text())
    path.write_text(json.dumps(dict(reversed(raw["reports"][0].items()))).join(('{"reports": [', "]}")))
    assert read_reports(path) == [green]


def test_two_runs_are_compared_case_by_case(green: Report) -> None:
    other = green.cases[5].model_copy(update={"outcome": "failed", "detail": "wanted 1, got 2"})
    again = green.model_copy(update={"cases": [*green.cases[:5], other, *green.cases[6:]], "quick": True})
    assert differences(green, green) == []
    assert differences(green, again) == [
        "quick: False in the report, True now",
        f"{other.work}: passed in the report, failed (wanted 1, got 2) now",
    ]


ROOT = Path(__file__).parents[2]
STORED = ("sqlite", "postgres")


def test_the_readme_holds_the_matrix_of_the_stored_reports() -> None:
    paths = [Path(f"docs/conformance/{name}.json") for name in STORED]
    stored = [report for path in paths for report in read_reports(ROOT / path)]
    assert between((ROOT / "docs/conformance.md").read_text(encoding="utf-8")).strip() == to_matrix(stored).strip(), (
        f"openproto conformance matrix {' '.join(map(str, paths))} --write docs/conformance.md"
    )


@pytest.mark.parametrize("name", STORED)
def test_a_stored_report_is_of_this_suite_and_green(name: str) -> None:
    (report,) = read_reports(ROOT / f"docs/conformance/{name}.json")
    assert report.headline.startswith("conforms · 9/9 verbs · cancellation native")
