"""The suite cannot be made to say more than it found out."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import functools
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path

import openproto_conformance
import pytest
from openproto_adapters.sqlite import Sqlite
from openproto_conformance import ProviderSuite, bench, bounded, probe, run
from openproto_conformance.bounded import run_bounded
from openproto_conformance.cases import CASES, concurrency
from openproto_conformance.checks import Violation, equal
from openproto_conformance.execute import ALL_WORK, SuiteRun
from openproto_conformance.histories.player import Player
from openproto_conformance.histories.steps import Made, Step, User
from openproto_conformance.outcome import Result
from openproto_conformance.probe import STRIKES, Strike, strike_once
from openproto_conformance.report import schema
from openproto_conformance.runner import suite_of
from saboteurs import SABOTEURS, SuiteOf, breaking, delaying, only, throw

from openproto import MemoryRecord, Provider, ProviderUnavailableError

CASE = "a_backend_that_answers_is_healthy"


@pytest.fixture
def sqlite(tmp_path: Path) -> Callable[[], Provider]:
    return lambda: Sqlite(tmp_path / "memory.db", embedder="none")


@pytest.mark.parametrize("name", ["test_conforms", CASE, f"test_{CASE}"])
def test_a_case_cannot_be_replaced(name: str) -> None:
    own = {name: lambda self: None}
    for bases, attributes in (((ProviderSuite,), own), ((type("Mixin", (), own), ProviderSuite), {})):
        with pytest.raises(TypeError, match="cannot be replaced"):
            type("Acme", bases, attributes)


@pytest.mark.parametrize("deviations", [{"no_such_case": "why"}, {CASE: " "}, {f"{CASE}[both]": "why"}])
def test_a_deviation_names_a_case_and_a_reason(deviations: dict[str, str]) -> None:
    with pytest.raises(TypeError, match="deviations"):
        type("Acme", (ProviderSuite,), {"deviations": deviations})


def test_a_provider_of_nothing_does_not_conform() -> None:
    report = run(Provider, quick=True)
    assert report.verdict == "fails"
    assert report.headline.startswith("fails · 1/9 verbs")
    assert {entry.case for entry in report.troubles()} >= {"the_least_is_there"}


def test_a_declared_failure_deviates(tmp_path: Path) -> None:
    unwell = breaking(health=lambda real: throw(ProviderUnavailableError("not today")))
    report = run(lambda: unwell(tmp_path / "m.db", embedder="none"), only=["basics"], deviations={CASE: "ACME-12"})
    assert report.tally["deviated"] == 2
    assert "failed" not in report.tally


def test_a_backend_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    half_open = breaking(list=lambda real, query: asyncio.Event().wait())
    monkeypatch.setattr(bench, "CALL_WITHIN", 1.0)
    started = time.monotonic()
    report = run(lambda: half_open(tmp_path / "m.db", embedder="none"), only=["paging"], quick=True, patience=2.0)
    assert time.monotonic() - started >= 3 * 1.0 * 2.0
    assert (report.verdict, report.exit_status) == ("fails", 1)
    assert report.problem is not None
    assert "given up: 3 cases did not end in time" in report.problem
    hung = [entry for entry in report.cases if entry.outcome == "failed"]
    assert len(hung) == 3
    for entry in hung:
        assert entry.work in report.problem, "they are named"
        assert "listing on 'sqlite'" in entry.detail or "'list' on 'sqlite'" in entry.detail
        assert "calls had ended" in entry.detail


@pytest.mark.parametrize("order", [[9, 3, 20, 15, 5, 6, 30], [30, 20, 15, 9, 6, 5, 3]])
def test_which_hangs_count_depends_on_no_order_of_ending(order: list[int]) -> None:
    run, hung = SuiteRun(), (5, 9, 20, 30)
    for number in order:
        run.note(Result(ALL_WORK[number], "failed" if number in hung else "passed", hung=number in hung))
    assert run.problem is not None
    assert run.problem.endswith(f"hangs: {ALL_WORK[5]}, {ALL_WORK[9]}, {ALL_WORK[20]}")
    outcomes = [run.results[ALL_WORK[number]].outcome for number in (3, 5, 6, 9, 15, 20, 30)]
    assert outcomes == ["passed", "failed", "passed", "failed", "passed", "failed", "missing"]


@pytest.mark.parametrize(("patience", "failed"), [(1.0, True), (20.0, False)])
def test_a_backend_that_is_slow_wants_patience(
    patience: float, failed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "CALL_WITHIN", 0.1)
    provider = breaking(add=delaying(0.12))(tmp_path / "m.db", embedder="none")
    report = run(lambda: copy.copy(provider), only=["ingestion"], quick=True, patience=patience)
    given_up = "failed" in report.tally or report.problem is not None  # on a busy machine it does not even open in time
    assert given_up == failed, report.to_markdown()


def test_reads_may_be_slow_where_nobody_writes_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = breaking(get=delaying(concurrency.READ_WITHIN / concurrency.READS))
    monkeypatch.setattr(concurrency, "READ_WITHIN", 0.2)
    case = "one_slow_call_starves_no_other[async]"
    report = run(lambda: slow(tmp_path / "m.db", embedder="none"), only=[case], quick=True)
    assert report.tally["passed"] == 1, report.to_markdown()


def test_what_only_a_hook_would_show_is_unseen(tmp_path: Path) -> None:
    case = "the_pool_is_back_after_cancellations"
    keeps = SABOTEURS["KeepsAConnection"].provider
    report = run(lambda: keeps(tmp_path / "m.db", embedder="none"), only=[case], quick=True)
    (entry,) = (entry for entry in report.cases if entry.case == case)
    assert (entry.outcome, entry.detail) == ("unseen", "as far as can be seen without the hook busy")
    assert "1 unseen" in report.headline


def test_two_runs_with_one_seed_give_one_report(sqlite: Callable[[], Provider]) -> None:
    by_chance = ["histories_of_everything", "random_probes_reach_nothing_foreign", "random_strikes_leave_whole_records"]
    first, second = (run(sqlite, only=by_chance, quick=True, seed=7) for _ in range(2))
    assert [entry.detail for entry in first.troubles() if entry.outcome != "missing"] == []
    assert first.timeless().model_dump() == second.timeless().model_dump()
    assert first.seed == 7


def test_the_seed_decides_what_is_found_and_how_it_is_shown(tmp_path: Path) -> None:
    def told(seed: int) -> list[str]:
        forgetful = breaking(list=only(lambda record, query: len(record.tags) != 2))
        provider = functools.partial(forgetful, tmp_path / "m.db", embedder="none")
        report = run(provider, only=["histories_of_adds"], quick=True, seed=seed)
        return [entry.detail for entry in report.cases if entry.outcome == "failed"]

    first = told(7)
    assert first
    assert told(7) == first
    assert told(8) != first


@pytest.mark.parametrize("outcome", ["passed", "failed"])
def test_the_longest_stall_is_measured_and_judged(outcome: str, tmp_path: Path) -> None:
    provider = Sqlite if outcome == "passed" else SABOTEURS["BlocksTheLoop"].provider
    (work,) = [work for work in ALL_WORK if work.case.name == "the_loop_is_never_blocked"]
    result = SuiteRun(quick=True).execute(SuiteOf(provider, tmp_path), work)
    assert result.outcome == outcome, result.detail
    assert (result.measures["longest_stall_ms"] < 20) == (outcome == "passed")


def test_the_schema_in_the_package_is_the_reports() -> None:
    assert files(openproto_conformance).joinpath("report.schema.json").read_text() == schema()


def test_every_case_says_what_it_tries_and_where_to_look() -> None:
    for case in CASES:
        assert case.sentence.endswith("."), case.name
        assert case.hint, case.name


def test_a_task_that_cannot_be_stopped_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded, "GRACE", 0.05)
    over = False

    async def swallow() -> None:
        while not over:
            try:
                await asyncio.sleep(5.0)
            except asyncio.CancelledError:
                continue

    started = time.monotonic()
    ended = run_bounded(swallow, 0.1)
    over = True
    assert ended.hung
    assert "nor within" in str(ended.error)
    assert time.monotonic() - started < 2.0


def test_a_task_left_behind_is_named() -> None:
    async def leave() -> None:
        leave.task = asyncio.ensure_future(asyncio.sleep(20.0))  # type: ignore[attr-defined]

    assert run_bounded(leave, 5.0).leaks == ["1 x task sleep"]


@pytest.mark.parametrize("how", STRIKES)
async def test_a_probe_strikes_at_each_await_and_sees_a_cancellation_swallowed(how: Strike) -> None:
    reached: list[int] = []

    async def three_steps(swallow: bool = False) -> None:
        for step in (1, 2, 3):
            try:
                await asyncio.sleep(0.02 if swallow and step == 1 else 0)
            except asyncio.CancelledError:
                reached.append(step)
                if not swallow:
                    raise

    for at in (1, 2, 3, 4):
        assert (await strike_once(three_steps, at, how)).happened == (at < 4)
    assert how != "task.cancel" or reached == [1, 2, 3]
    with pytest.raises(Violation, match="as if nothing had happened"):
        await strike_once(lambda: three_steps(True), 1, how)


@pytest.mark.parametrize("how", STRIKES)
async def test_a_probe_has_patience_until_it_strikes_and_none_after(
    how: Strike, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "REACHED_WITHIN", 0.1)
    monkeypatch.setattr(probe, "ENDED_WITHIN", 0.1)

    async def slow() -> None:
        await asyncio.sleep(0.2)
        await asyncio.sleep(1.0)

    async def slow_to_end() -> None:
        deadline = time.monotonic() + 1.0
        while time.monotonic() < deadline:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0.2)

    with pytest.raises(Violation, match=r"did not come so far in 0\.1 s"):
        await strike_once(slow, 2, how)
    assert (await strike_once(slow, 2, how, patience=10.0)).happened
    with pytest.raises(Violation, match=r"did not end in 0\.1 s"):
        await strike_once(slow_to_end, 2, how, patience=10.0)


def test_a_difference_shows_what_differs_and_nothing_else() -> None:
    record = MemoryRecord(id="i", content="tea", user_id="u", created_at=datetime(2026, 1, 1, tzinfo=UTC), tags=["a"])
    other = record.model_copy(update={"content": "milk"})
    with pytest.raises(Violation, match=r"^the record\.content: wanted 'milk', got 'tea'$"):
        equal(record, other, "the record")
    with pytest.raises(Violation, match=r"^all\[1\]\.content: wanted 'milk', got 'tea'$"):
        equal([record, record], [record, other], "all")
    with pytest.raises(Violation, match=r"^the values: wanted \{\}, got \{'b': 2\}$"):
        equal({"a": 1, "b": 2}, {"a": 1}, "the values")


@pytest.mark.parametrize("at", [1, 99], ids=["before it is sent", "after it ended"])
async def test_a_cancelled_update_of_nothing_may_have_an_audit_entry(at: int, sqlite: Callable[[], Provider]) -> None:
    changes_nothing = Step(1, "update", {"id": Made(0), "scope": None})
    history = (
        Step(0, "add", {"user_id": User(0), "content": "likes tea"}),
        Step(2, "cancelled", {"at": at}, parts=(changes_nothing,)),
        Step(3, "audit", {"user_id": User(0), "limit": 500}),
    )
    async with bench.Bench(suite_of(sqlite, deviations={}), "histories", "async", quick=True) as desk:
        assert await Player(desk, [desk.client], ["ada"], history).play() is None
