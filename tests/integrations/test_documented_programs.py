"""Every program of these pages, and those of the README, print what the comments at their prints say."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
HEADING_OR_PROGRAM = re.compile(r"^## ([^\n]*)$|^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PRINTED = re.compile(r"^ *print\(.*\)  # (.*)$", re.MULTILINE)
"""What a line prints; `...` stands for what differs from run to run."""


def programs() -> Iterator[Any]:
    """Yield each program; those of the README that want a service of their own are run by `test_readme.py`."""
    for name in ("docs/integrations.md", "docs/beside.md", "README.md"):
        heading = name
        for number, found in enumerate(HEADING_OR_PROGRAM.finditer((ROOT / name).read_text())):
            heading = found[1] or heading
            if found[2] and (name != "README.md" or PRINTED.search(found[2])):
                yield pytest.param(found[2], id=f"{heading} {number}")


@pytest.mark.promise(80)
@pytest.mark.parametrize("program", list(programs()))
def test_a_program_prints_what_its_comments_say(program: str, tmp_path: Path, run_python: Callable[..., Any]) -> None:
    assert sum("README" in str(each.id) for each in programs()) == 2, "both at the head of it"
    expected = PRINTED.findall(program)
    assert expected, "the program shows nothing"
    nowhere = "http://127.0.0.1:9"
    away = {"HOME": tmp_path, "XDG_DATA_HOME": tmp_path, "http_proxy": nowhere, "https_proxy": nowhere}
    ran = run_python(program, env={name: str(value) for name, value in away.items()}, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert re.fullmatch(re.escape("\n".join(expected)).replace(r"\.\.\.", ".+"), ran.stdout.strip()), ran.stdout
