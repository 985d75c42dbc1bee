"""Every program of these pages and of the README prints what its comments say; what is not installed is named."""

from __future__ import annotations

import re
import tomllib
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


MODULES = """langgraph openai_agents anthropic_memory mcp google_adk agent_framework strands pydantic_ai llama_index
    opentelemetry prometheus""".split()
EXTRAS = ["anthropic" if name == "anthropic_memory" else name.replace("_", "-") for name in MODULES]
WITHOUT_PACKAGES = """
import sys
class Nothing:
    def find_spec(self, name, path=None, target=None):
        own = ("openproto", "pydantic", "typing", "annotated", "platformdirs", "Stemmer")
        if name.partition(".")[0] in sys.stdlib_module_names or name.startswith(own) or path is not None:
            return None
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
import openproto
from openproto import AsyncMemory, Memory
sys.meta_path.insert(0, Nothing())
for name in sys.argv[1:]:
    try:
        __import__(f"openproto.integrations.{name}")
    except ImportError as error:
        print(error)
"""


def test_a_missing_package_is_named_with_its_extra(run_python: Callable[..., Any]) -> None:
    ran = run_python(WITHOUT_PACKAGES, *MODULES)
    said = ran.stdout.splitlines()
    for line, extra in zip(said, EXTRAS, strict=True):
        assert f"pip install 'openproto[{extra}]'" in line, ran.stderr
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert set(EXTRAS) <= project["project"]["optional-dependencies"].keys()
