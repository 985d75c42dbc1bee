"""Providers unlike others: correct ones conform as well, and what does harm is reported as that, in a report."""

from __future__ import annotations

import os
import random
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any

import pytest
from openproto_adapters.sqlite import Sqlite, lanes, statements
from openproto_conformance.report import Report
from openproto_conformance.runner import run
from openproto_conformance.verify import read_reports
from saboteurs import Fault, Real, SuiteOf, breaking, changed, claiming, declaring, delaying, outcome_of

from openproto import MemoryRecord, Provider
from openproto.provider import SearchResults
from openproto.requests import SearchQuery

TRIED = (
    "histories_of_searches",
    "histories_of_updates",
    "histories_of_pages",
    "results_come_best_first",
    "the_loop_is_never_blocked",
)


async def scoring_equally(real: Real, query: SearchQuery) -> SearchResults:
    hits = await real(changed(query, min_score=None))
    return [changed(hit, score=1.0, parts={"backend": 1.0} if query.explain else None) for hit in hits]


EVERY_SCORE_IS_EQUAL = breaking("EveryScoreIsEqual", search=scoring_equally)
EVERY_READ_TAKES_30_MS = breaking("EveryReadTakes30ms", **dict.fromkeys(("get", "list", "search"), delaying(0.03)))


def is_late(record: MemoryRecord) -> bool:
    return datetime.now(UTC) - (record.updated_at or record.created_at) < timedelta(seconds=1)


def told(outcome: Any, _: object = None) -> Any:
    late = isinstance(outcome, MemoryRecord) and is_late(outcome)
    return changed(outcome, status="indexing") if late else outcome


INGESTS_A_SECOND_LATE = breaking(
    "IngestsASecondLate",
    **dict.fromkeys(("add", "update", "get"), Fault(tell=told)),
    add_many=Fault(tell=lambda outcomes, _: [*map(told, outcomes)]),
    search=Fault(tell=lambda hits, _: [hit for hit in hits if not is_late(hit.memory)]),
    **declaring(claiming(async_ingestion=True)),
)


def passed_on(verb: str) -> Any:
    async def call(self: FewVerbs, *given: Any, **options: Any) -> Any:
        return await getattr(self.store, verb)(*given, **options)

    return call


class FewVerbs(Provider):
    """The least that there may be, with the base class's `add_many`; subclasses have `list` or `search` as well."""

    name = "few"
    cancellation = "native"
    open, close, add, get, delete = map(passed_on, ("open", "close", "add", "get", "delete"))

    def __init__(self, path: Path) -> None:
        self.store = Sqlite(path, embedder="none")

    async def capabilities(self) -> Any:
        features = (await self.store.capabilities()).features
        without = {"keyword_search": "search" in self.verbs, "vector_search": False, "supports_audit": False}
        return changed(await super().capabilities(), features=changed(features, **without))


class OnlyLists(FewVerbs):
    list = passed_on("list")


class OnlySearches(FewVerbs):
    async def search(self, query: SearchQuery) -> SearchResults:
        return await self.store.search(changed(query, explain=False))


def random_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let ids be in no order at all."""
    for module in ("openproto.ids", "openproto.provider", "openproto.stores.indexer"):
        monkeypatch.setattr(f"{module}.new_id", lambda user_id: f"{random.getrandbits(128):032x}", raising=False)


def clock_off_by(seconds: float) -> Callable[[pytest.MonkeyPatch], None]:
    """Return what lets the store's clock, and no other, be ahead or behind."""

    class Shifted(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:
            return datetime.now(tz) + timedelta(seconds=seconds)

    def shift(monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(statements, "now", lambda: (time.time_ns() // 1000) + int(seconds * 1e6))
        stores = [f"openproto_adapters.sqlite.{module}" for module in ("adding", "provider", "restoring")]
        for module in (*stores, "openproto.stores.audit_buffer"):
            monkeypatch.setattr(f"{module}.datetime", Shifted)

    return shift


@pytest.mark.parametrize("name", TRIED)
@pytest.mark.parametrize(
    "provider",
    [EVERY_SCORE_IS_EQUAL, EVERY_READ_TAKES_30_MS, pytest.param(INGESTS_A_SECOND_LATE, marks=pytest.mark.full)],
)
def test_an_unusual_provider_conforms(provider: type[Sqlite], name: str, tmp_path: Path) -> None:
    assert outcome_of(SuiteOf(provider, tmp_path), name) == "passed"


@pytest.mark.parametrize(
    "only", [["capabilities", "context", "histories_of_contexts", "search"], pytest.param([], marks=pytest.mark.full)]
)
@pytest.mark.parametrize("provider", [OnlyLists, OnlySearches])
def test_a_provider_of_few_verbs_conforms(provider: type[FewVerbs], only: list[str], tmp_path: Path) -> None:
    report = run(lambda: provider(tmp_path / "memory.db"), only=only, quick=True)
    assert report.verdict == ("incomplete" if only else "conforms"), report.to_markdown()
    assert report.tally.keys() >= {"passed", "refused"}


@pytest.mark.parametrize("name", [*TRIED[:3], "histories_of_supersession", "histories_of_contexts"])
@pytest.mark.parametrize(
    "change", [random_ids, clock_off_by(2), clock_off_by(-2)], ids=["random ids", "clock ahead", "clock behind"]
)
def test_ids_and_clocks_of_another_kind_conform(
    change: Callable[[pytest.MonkeyPatch], None], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(monkeypatch)
    assert outcome_of(SuiteOf(Sqlite, tmp_path), name) == "passed"


MODULE = """
import asyncio, multiprocessing, os, sys, threading, time
from openproto_adapters.sqlite import Sqlite

class Bad(Sqlite):
    def __init__(self, path=None):
        super().__init__(path, embedder="none")

    def start_a_thread(self):
        threading.Thread(target=time.sleep, args=(3600,), name="immortal", daemon=False).start()

    def in_a_helper(self):
        return multiprocessing.parent_process() is not None

    """
NO_OPENING = "could not be opened: "
BAD = {
    "HangsInOpen": (
        "async def open(self): await asyncio.Event().wait()",
        f"{NO_OPENING}ProviderTimeoutError: opening on 'sqlite' did not finish within",
    ),
    "BlocksInOpen": ("async def open(self): time.sleep(3600)", f"{NO_OPENING}the event loop was blocked"),
    "RaisesInItsConstructor": (
        "def __init__(self, path=None): raise LookupError('where is it?')",
        f"{NO_OPENING}LookupError: where is it?",
    ),
    "RefusesEveryValue": ("def __init__(self, path=None): raise ValueError('none')", f"{NO_OPENING}ValueError: none"),
    "ExitsInOpen": ("async def open(self): sys.exit(3)", f"{NO_OPENING}the provider raised SystemExit(3)"),
    "Exits": ("async def health(self): sys.exit(3)", "ended the loop of every Memory"),
    "Prints": (
        "async def health(self): print('hello from the provider')",
        "text on stdout, 24 characters that begin with 'hello from the provider",
    ),
    "StartsAThread": ("async def open(self): self.start_a_thread(); await super().open()", "thread 'immortal'"),
    "HangsInGet": (
        "async def get(self, ref): await asyncio.Event().wait()",
        "'get' on 'sqlite' did not finish within 3 s; nothing was changed. Raise timeout=, or look at the backend's "
        "load: 3 calls had ended",
    ),
}
BAD_IN_A_HELPER = {
    "Dies": "async def get(self, ref): return os._exit(5) if self.in_a_helper() else await super().get(ref)",
    "RefusesASecondStore": "async def open(self): return 1 / 0 if self.in_a_helper() else await super().open()",
}


PATCHES = "from openproto_conformance import bench, bounded, execute; bench.CALL_WITHIN = 3.0; bounded.GRACE = 0.3; "
PROGRAM = f"{PATCHES} execute.WARM_UP_SECONDS = 7.0; from openproto.cli import main; import sys; sys.exit(main())"
CASES = ("a_backend_that_answers_is_healthy", "errors/an_error_says_what_and_where", "get_returns_what_was_added")


@pytest.fixture
def tried(tmp_path: Path, run_python: Any) -> Callable[..., tuple[str, Report]]:
    """Try a few cases on a provider with a method, and return what that prints, and the report."""

    def trying(method: str, *options: str) -> tuple[str, Report]:
        (tmp_path / "bad_provider.py").write_text(MODULE + method)
        info = tmp_path / "bad_provider-1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: bad_provider\nVersion: 1\n")
        (info / "entry_points.txt").write_text("[openproto.providers]\nbad = bad_provider:Bad\n")
        path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
        wanted = [f"--only={case}" for case in CASES] + ["--quick", "--json", "--report", "report.json", *options]
        environment = {"PYTHONPATH": path}
        done = run_python(PROGRAM, "conformance", "bad", *wanted, env=environment, cwd=tmp_path, timeout=120)
        assert done.returncode == 1, done.stdout + done.stderr
        (report,) = read_reports(tmp_path / "report.json")
        return done.stdout, report

    return trying


@pytest.mark.parametrize("name", BAD)
def test_it_is_reported_as_that(name: str, tried: Any) -> None:
    method, said = BAD[name]
    printed, report = tried(method)
    assert report.verdict == "fails", report.to_markdown()
    texts = [report.problem or "", *(entry.detail for entry in report.cases)]
    assert any(said in text for text in texts), report.to_markdown()
    assert printed.startswith('{"reports"'), "what the provider prints is not in the output"


@pytest.mark.parametrize("name", BAD_IN_A_HELPER)
def test_one_process_goes_on_where_the_other_cannot(name: str, tried: Any) -> None:
    _, report = tried(BAD_IN_A_HELPER[name], "--processes", "2", "--only", "basics")
    assert report.tally.keys() == {"passed", "missing"}, report.to_markdown()
    assert all(entry.outcome == "passed" for entry in report.cases if entry.area == "basics")


@pytest.mark.parametrize("steps", [3, 40, 300])
def test_interrupted_statements_leave_whole_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    monkeypatch.setattr(lanes, "_STEPS_BETWEEN_LOOKS", steps)
    suite = SuiteOf(Sqlite, tmp_path)
    assert outcome_of(suite, "a_pool_of_five_survives_a_storm") == "passed"
    with closing(sqlite3.connect(suite.path)) as file:
        file.execute("INSERT INTO words (words) VALUES ('integrity-check')")
        assert file.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
