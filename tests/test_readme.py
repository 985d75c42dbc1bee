"""The commands of the README and of the page about moving run as they stand, and so do programs that want a service.

Those that stand for themselves are run by `integrations/test_documented_programs.py`.
"""

from __future__ import annotations

import os
import re
import shlex
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from openproto import AsyncMemory
from openproto.embedding import Embedder
from openproto.portable.formats import NAMES
from openproto.registry import OWN, make_provider

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
(PROVIDERS,) = [block for block in BLOCKS if "from_env" in block]
(AROUND_LLM,) = [block for block in BLOCKS if "wrap(" in block]
DOCS = Path(__file__).parent.parent / "docs"
(EMBEDDERS,) = re.findall(r"```python\n(.*?)```", (DOCS / "embedders.md").read_text(encoding="utf-8"), re.DOTALL)
MOVING = (DOCS / "moving.md").read_text(encoding="utf-8")
FAKE_LLM = Path(__file__).parent / "llm" / "fake_llm.py"
COMMANDS = re.findall(r"^\$ (openproto (?!serve).*)$", README, re.MULTILINE)
(SERVE,) = re.findall(r"^\$ (openproto serve .*)$", README, re.MULTILINE)


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OPENPROTO_")}
    return {**kept, "HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path)}


def test_the_server_starts_answers_and_ends(home: dict[str, str], tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    program, *arguments = shlex.split(SERVE.replace("8080", str(port)))
    command = [Path(sys.executable).with_name(program), *arguments]
    with subprocess.Popen(command, env=home, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stderr
            assert f"serving postgres on http://127.0.0.1:{port}" in server.stderr.readline()
            answer = httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=30).json()
            assert answer == {"status": "ok", "provider": "postgres"}
        finally:
            server.terminate()
            server.communicate(timeout=30)
    assert server.returncode == 0


def test_each_way_to_make_a_client_makes_one(home: dict[str, str], tmp_path: Path) -> None:
    made = (f"print({line.partition('  #')[0]})" for line in PROVIDERS.strip().splitlines())
    command = [sys.executable, "-W", "error", "-c", "\n".join(["from openproto import AsyncMemory", *made])]
    ran = subprocess.run(command, env=home, cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    names = ["sqlite", "sqlite", "postgres", "postgres", "passthrough", "mem0", "supermemory", "sqlite"]
    assert ran.stdout.splitlines() == [f"<AsyncMemory provider={name!r}>" for name in names]


def test_an_llm_client_remembers(home: dict[str, str]) -> None:
    asking = AROUND_LLM.replace("I take my coffee black.", "What do you remember of my coffee?")
    assert asking != AROUND_LLM
    with subprocess.Popen([sys.executable, FAKE_LLM], stdout=subprocess.PIPE, text=True) as llm:
        try:
            assert llm.stdout
            env = {**home, "OPENAI_BASE_URL": f"{llm.stdout.readline().strip()}/v1", "OPENAI_API_KEY": "none"}
            run = partial(subprocess.run, env=env, capture_output=True, text=True)
            said = run([sys.executable, "-c", AROUND_LLM])
            answers = (run([sys.executable, "-c", asking]).stdout for _ in range(3))
            # A recall that takes too long is left out.
            remembered = next((answer for answer in answers if answer.startswith("I remember: ")), "")
        finally:
            llm.terminate()
    assert said.stdout == "You said: I take my coffee black.\n", said.stderr
    assert "I take my coffee black." in remembered


def test_the_example_of_an_embedder_has_the_shape_of_one() -> None:
    names: dict[str, Any] = {"AsyncMemory": AsyncMemory}
    exec(EMBEDDERS, names)
    assert isinstance(names["FastEmbed"](), Embedder)


def test_the_commands_work_one_after_the_other(home: dict[str, str], tmp_path: Path) -> None:
    assert len(COMMANDS) >= 4
    for command in COMMANDS:
        program, *arguments = shlex.split(command)
        program = str(Path(sys.executable).with_name(program))
        ran = subprocess.run([program, *arguments], env=home, cwd=tmp_path, capture_output=True, text=True)
        assert ran.returncode == 0, f"{command}\n{ran.stdout}\n{ran.stderr}"
    assert "Ada takes her coffee black" in (tmp_path / "memories.jsonl").read_text()


def test_the_commands_about_moving_memories_work_one_after_the_other(home: dict[str, str], tmp_path: Path) -> None:
    blocks = re.findall(r"<!-- run -->\n```console\n(.*?)```", MOVING, re.DOTALL)
    commands = [line.removeprefix("$ ") for block in blocks for line in block.splitlines()]
    assert len(commands) >= 8
    env = {**home, "OPENPROTO_EMBEDDER": "none", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    for command in commands:
        ran = subprocess.run(["sh", "-c", command], env=env, cwd=tmp_path, capture_output=True, text=True)
        assert ran.returncode == 0, f"{command}\n{ran.stdout}\n{ran.stderr}"
    assert "Ada likes jazz" in (tmp_path / "ada.jsonl").read_text()
    first_cells = re.findall(r"^\| ((?:`[a-z0-9-]+`(?:, )?)+) \|", MOVING, re.MULTILINE)
    named = re.findall(r"`([a-z0-9-]+)`", " ".join(first_cells))
    assert sorted(name for name in named if name != "--format") == sorted(NAMES)


NOWHERE = {"base_url": "http://127.0.0.1:1", "api_key": "k"}
CLIENTS: list[tuple[str, dict[str, Any], str]] = [
    ("sqlite", {"embedder": "none"}, "native"),
    ("postgres", {"url": "postgresql://ada@127.0.0.1:1/none", "embedder": "none"}, "native"),
    *((name, NOWHERE, "native") for name in ("passthrough", "memorysync", "memsy")),
    *((name, NOWHERE, "aborting") for name in ("mem0", "supermemory", "letta")),
    *(("mem0", {}, "detached"), ("memori", {}, "detached")),
]


@pytest.mark.promise(84)
def test_the_table_has_every_provider_of_the_project_and_how_its_calls_are_cancelled() -> None:
    rows = re.findall(r"^\| `(\w+)` \| `openproto\[\w+\]` \|.*\| ([a-z, ]+) \|$", README, re.MULTILINE)
    assert {name for name, _ in rows} == OWN.keys()
    said = {(name, tier) for name, tiers in rows for tier in tiers.split(", ")}
    assert said == {(name, tier) for name, _, tier in CLIENTS}
    for name, options, tier in CLIENTS:
        assert make_provider(name, options).cancellation == tier
