"""`openproto bench`: figures that can be computed again, a memory that beats its rivals, and nothing left behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from openproto import Memory
from openproto.cli import main
from openproto.cli.benchmark.conversations import read_conversations
from openproto.cli.benchmark.figures import marks

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
