"""The suite is believed because broken providers fail it, each by a case of the right area; the reference passes."""

from __future__ import annotations

from pathlib import Path

import faults_of_meaning
import faults_under_way
import pytest
from _pytest.mark import ParameterSet
from openproto_conformance.execute import ALL_WORK, SuiteRun
from saboteurs import SABOTEURS, Saboteur, SuiteOf, catch

MODULES = (faults_of_meaning, faults_under_way)
"""Each puts its providers among the saboteurs when it is imported."""

EVERYDAY = 12
"""One in so many is tried in every run, and all of them in `make test-full`."""


def tried(number: int, saboteur: Saboteur) -> ParameterSet:
    marks = () if number % EVERYDAY == EVERYDAY - 1 else pytest.mark.full
    return pytest.param(saboteur, id=saboteur.provider.__name__, marks=marks)


# Some of them leave files and clients behind on purpose; whenever those are collected is not this test's failure.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
@pytest.mark.parametrize("saboteur", [tried(*each) for each in enumerate(SABOTEURS.values())])
def test_a_saboteur_is_caught(saboteur: Saboteur, tmp_path: Path) -> None:
    assert catch(saboteur, tmp_path) is not None


@pytest.mark.full
def test_all_faults_of_meaning_at_once_fail_forty_cases(tmp_path: Path) -> None:
    of_meaning = faults_of_meaning.__name__
    faults = [saboteur.provider for saboteur in SABOTEURS.values() if saboteur.provider.__module__ == of_meaning]
    suite, run = SuiteOf(type("AllAtOnce", tuple(faults), {}), tmp_path), SuiteRun(quick=True)
    failed = {work.case.name for work in ALL_WORK if run.execute(suite, work).outcome == "failed"}
    assert len(failed) >= 40, failed
