"""An integration whose package is not installed says how to get it."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    assert set(EXTRAS) <= project["project"]["optional-dependencies"].keys()
