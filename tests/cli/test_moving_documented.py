"""The commands of the page about moving memories are run as they stand there, one after the other."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from openproto.portable.formats import NAMES

PAGE = (Path(__file__).parents[2] / "docs/moving.md").read_text(encoding="utf-8")
COMMANDS = [
    command[2:]
    for block in re.findall(r"<!-- run -->\n```console\n(.*?)```", PAGE, re.DOTALL)
    for command in block.splitlines()
]


def test_the_documented_commands_work_one_after_the_other(tmp_path: Path) -> None:
    assert len(COMMANDS) >= 8
    folder = str(Path(sys.executable).parent)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OPENPROTO_")}
    home = {"HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path), "OPENPROTO_EMBEDDER": "none"}
    env = {**kept, **home, "PATH": f"{folder}:{os.environ['PATH']}"}
    for command in COMMANDS:
        ran = subprocess.run(["sh", "-c", command], env=env, cwd=tmp_path, capture_output=True, text=True)
        assert ran.returncode == 0, f"{command}\n{ran.stdout}\n{ran.stderr}"
    assert "Ada likes jazz" in (tmp_path / "ada.jsonl").read_text()


def test_the_table_names_every_format() -> None:
    first_cells = re.findall(r"^\| ((?:`[a-z0-9-]+`(?:, )?)+) \|", PAGE, re.MULTILINE)
    named = re.findall(r"`([a-z0-9-]+)`", " ".join(first_cells))
    assert sorted(name for name in named if name != "--format") == sorted(NAMES)
