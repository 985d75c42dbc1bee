"""Every program and every command of the README is run, as it stands there."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
PROGRAMS = [block for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "import" in block]
COMMANDS = re.findall(r"^\$ (openproto .*)$", README, re.MULTILINE)


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OPENPROTO_")}
    return {**kept, "HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path)}


@pytest.mark.promise(80)
@pytest.mark.parametrize("program", PROGRAMS[:2], ids=["asynchronous", "synchronous"])
def test_the_programs_answer(program: str, home: dict[str, str]) -> None:
    ran = subprocess.run([sys.executable, "-W", "error", "-c", program], env=home, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert "Ada takes her coffee black" in ran.stdout


def test_the_example_of_an_embedder_has_the_shape_of_one() -> None:
    from openproto.embedding import Embedder

    (program,) = [program for program in PROGRAMS if "class FastEmbed" in program]
    names: dict[str, type] = {}
    exec(program[program.index("class FastEmbed") :].partition("\nAsyncMemory")[0], names)
    assert isinstance(names["FastEmbed"](), Embedder)


def test_the_commands_work_one_after_the_other(home: dict[str, str], tmp_path: Path) -> None:
    assert len(COMMANDS) >= 4
    for command in COMMANDS:
        program, *arguments = shlex.split(command)
        program = str(Path(sys.executable).with_name(program))
        ran = subprocess.run([program, *arguments], env=home, cwd=tmp_path, capture_output=True, text=True)
        assert ran.returncode == 0, f"{command}\n{ran.stdout}\n{ran.stderr}"
    assert "Ada takes her coffee black" in (tmp_path / "memories.jsonl").read_text()
