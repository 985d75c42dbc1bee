"""An integration whose package is not installed says how to get it."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

EXTRAS = {
    "langgraph": "langgraph",
    "openai_agents": "openai-agents",
    "anthropic_memory": "anthropic",
    "mcp": "mcp",
    "google_adk": "google-adk",
    "agent_framework": "agent-framework",
    "strands": "strands",
    "pydantic_ai": "pydantic-ai",
    "llama_index": "llama-index",
    "opentelemetry": "opentelemetry",
    "prometheus": "prometheus",
}


@pytest.mark.parametrize("module", EXTRAS)
def test_a_missing_package_is_named_with_its_extra(module: str, run_python: Callable[..., Any]) -> None:
    program = """
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
try:
    __import__(f"openproto.integrations.{sys.argv[1]}")
except ImportError as error:
    print(error)
"""
    said = run_python(program, module)
    assert f"pip install 'openproto[{EXTRAS[module]}]'" in said.stdout, said.stderr
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    assert EXTRAS[module] in project["project"]["optional-dependencies"]
