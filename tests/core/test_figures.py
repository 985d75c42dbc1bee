"""The figures in the documents are those of one whole run of `make bench`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.__main__ import BENCHMARKS, DOCUMENTS, EXACT, FIGURES, RUNS
from benchmarks.report import quoted

REPORT = json.loads(FIGURES.read_text(encoding="utf-8"))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_a_document_quotes_the_figures_of_the_run_that_is_kept(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    assert "<!-- figures" in text
    assert quoted(text, REPORT) == text


def test_the_run_that_is_kept_is_whole() -> None:
    assert not REPORT["quick"]
    assert [*dict.fromkeys(figure["benchmark"] for figure in REPORT["figures"])] == [*BENCHMARKS]
    timed = [one for one in REPORT["figures"] if one["value"] is not None and one["benchmark"] not in EXACT]
    assert all(len(figure["detail"]["runs"]) == RUNS for figure in timed)
