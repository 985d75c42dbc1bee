"""Each vendor's and each integration's extra, installed into an environment of its own: it works alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SDK = {
    "mem0": "mem0",
    "supermemory": "supermemory",
    "letta": "letta_client",
    "memorysync": "memorysync",
    "memsy": "memsy",
    "memori": "memori",
}
INTEGRATIONS = {
    "langgraph": "langgraph",
    "openai-agents": "openai_agents",
    "anthropic": "anthropic_memory",
    "mcp": "mcp",
    "google-adk": "google_adk",
    "agent-framework": "agent_framework",
    "strands": "strands",
    "opentelemetry": "opentelemetry",
    "prometheus": "prometheus",
}
"""The module of `openproto.integrations` that each extra is for."""

PROGRAM = """
import json, sys
from importlib.util import find_spec
from openproto import AsyncMemory, UnknownProviderError
from openproto.registry import provider_class

sdks = json.loads(sys.argv[1])
told = {}
for name in sdks:
    try:
        told[name] = provider_class(name).name
    except ImportError as error:
        told[name] = str(error)
found = [name for name, module in sdks.items() if find_spec(module)]
print(json.dumps({"told": told, "found": found}))
"""

pytestmark = pytest.mark.installs


def run(folder: Path, extras: str, *program: str) -> str:
    """Install the project with `extras` and return what a program prints there."""
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True, timeout=120)
    python = folder / "venv/bin/python"
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--constraint"]
    subprocess.run([*pip, ROOT / "constraints.txt", f"{ROOT}{extras}"], check=True, timeout=900, cwd=folder)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OPENPROTO_", "PYTHON"))}
    command = [python, "-c", *program]
    done = subprocess.run(command, cwd=folder, env=kept, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def installed(folder: Path, extras: str) -> dict[str, object]:
    """Install the project with `extras` and return which vendors' SDKs its environment then has."""
    told: dict[str, object] = json.loads(run(folder, extras, PROGRAM, json.dumps(SDK)))
    return told


def test_the_project_alone_brings_no_vendor_and_says_how_to_get_each(tmp_path: Path) -> None:
    told = installed(tmp_path, "")
    assert told["found"] == []
    assert told["told"] == {
        name: f"provider {name!r} needs {module!r}: pip install 'openproto[{name}]'" for name, module in SDK.items()
    }


@pytest.mark.parametrize("name", SDK)
def test_each_vendors_extra_works_alone(name: str, tmp_path: Path) -> None:
    told = installed(tmp_path, f"[{name}]")
    assert told["found"] == [name]
    assert told["told"][name] == name  # type: ignore[index]  # a dict, as the first test shows


def test_all_of_them_work_together(tmp_path: Path) -> None:
    told = installed(tmp_path, "[all]")
    assert told["told"] == {name: name for name in SDK}


@pytest.mark.parametrize(("extra", "module"), INTEGRATIONS.items())
def test_each_integrations_extra_works_alone(extra: str, module: str, tmp_path: Path) -> None:
    program = f"import openproto.integrations.{module} as it; print(*it.__all__)"
    assert run(tmp_path, f"[{extra}]", program).strip()
