"""Conversations to ask about: LoCoMo's files, or JSON Lines."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

ADVERSARIAL = 5  # LoCoMo's category of questions that the conversation does not answer


class Said(NamedTuple):
    """One turn: its id, who and what, and which sitting of the conversation it belongs to."""

    id: str
    text: str
    session: str


class Question(NamedTuple):
    """A question, and the ids of the turns that answer it."""

    text: str
    evidence: frozenset[str]


class Conversation(NamedTuple):
    """What one user's memory is filled with, and asked."""

    name: str
    turns: Sequence[Said]
    questions: Sequence[Question]


def read_conversations(path: Path) -> list[Conversation]:
    """Return the conversations of a file, or of every .json and .jsonl in a folder.

    A .json file is one conversation as LoCoMo writes it. A .jsonl file has a line for each turn, {"id", "text"} and,
    if wanted, "session", and one for each question, {"question", "evidence": [ids]}. Raises ValueError, naming the
    file, for anything else.
    """
    files = sorted(file for file in path.iterdir() if file.suffix in (".json", ".jsonl")) if path.is_dir() else [path]
    found: list[Conversation] = []
    for file in files:
        try:
            found.append(_lines(file) if file.suffix == ".jsonl" else _locomo(file))
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            raise ValueError(f"{file.name} is no conversation in LoCoMo's format or JSON Lines") from error
    if not any(conversation.questions for conversation in found):
        raise ValueError(f"{path.name} has no questions whose evidence is among its turns")
    return found


def _locomo(file: Path) -> Conversation:
    data: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    turns: list[Said] = []
    for key in sorted(filter(re.compile(r"session_\d+").fullmatch, data), key=lambda key: int(key.partition("_")[2])):
        for turn in data[key]:
            caption = turn.get("blip_caption")
            text = f"{turn['speaker']}: {turn['text']}" + (f" [{caption}]" if caption else "")
            turns.append(Said(turn["dia_id"], text, key))
    ids = {turn.id for turn in turns}
    questions = [
        Question(asked["question"], evidence)
        for asked in data["qa"]
        if asked.get("category") != ADVERSARIAL and (evidence := frozenset(asked.get("evidence", ())) & ids)
    ]
    return Conversation(file.stem, turns, questions)


def _lines(file: Path) -> Conversation:
    rows: list[dict[str, Any]] = [
        dict(json.loads(line)) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()
    ]
    turns = [Said(str(row["id"]), row["text"], str(row.get("session", ""))) for row in rows if "text" in row]
    ids = {turn.id for turn in turns}
    questions = [
        Question(row["question"], evidence)
        for row in rows
        if "question" in row and (evidence := frozenset(map(str, row["evidence"])) & ids)
    ]
    return Conversation(file.stem, turns, questions)
