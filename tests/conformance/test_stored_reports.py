"""The reports in docs/conformance are of this suite, and the matrix in docs/conformance.md is made of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from openproto_conformance.markers import between
from openproto_conformance.report import to_matrix
from openproto_conformance.verify import read_reports

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
