"""The suite is believed because broken providers fail it, each by a case of the right area; the reference passes."""

from __future__ import annotations

from pathlib import Path

import faults_in_reads
import faults_in_writes
import faults_under_way
import pytest
from openproto_adapters.sqlite import Sqlite
from openproto_conformance.runner import run_suite
from saboteurs import SABOTEURS, Saboteur, SuiteOf, catch

MODULES = (faults_in_reads, faults_in_writes, faults_under_way)
"""Each puts its providers among the saboteurs when it is imported."""


# Some of them leave files and clients behind on purpose; whenever those are collected is not this test's failure.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
@pytest.mark.parametrize("saboteur", SABOTEURS, ids=lambda saboteur: saboteur.provider.__name__)
def test_a_saboteur_is_caught(saboteur: Saboteur, tmp_path: Path) -> None:
    assert catch(saboteur, tmp_path) is not None


def test_the_reference_is_not_caught(tmp_path: Path) -> None:
    report = run_suite(SuiteOf(Sqlite, tmp_path), quick=True)
    assert report.headline == "conforms · 9/9 verbs · cancellation native · quick", report.to_markdown()
