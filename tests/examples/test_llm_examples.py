"""The examples of memory around LLM clients, run as their readers would run them, with a model that is on a socket."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, TypeAlias

import httpx
import pytest

from openproto.server import running

ROOT = Path(__file__).parents[2]
LLM = ROOT / "examples/llm"

Environment: TypeAlias = dict[str, str]


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[Environment]:
    command = [sys.executable, str(ROOT / "tests/llm/fake_llm.py"), "0.02"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as model:
        assert model.stdout
        url = model.stdout.readline().strip()
        kept = {name: value for name, value in os.environ.items() if not name.startswith("OPENPROTO_")}
        openai = {"OPENAI_BASE_URL": f"{url}/v1", "OPENAI_API_KEY": "k"}
        anthropic = {"ANTHROPIC_BASE_URL": url, "ANTHROPIC_API_KEY": "k"}
        # No embedder: quick to open, and how well memories are found is not the point here.
        store = {"PROVIDER": "sqlite", "PATH": str(tmp_path / "memory.db"), "EMBEDDER": "none"}
        yield {**kept, **openai, **anthropic, **{f"OPENPROTO_{name}": value for name, value in store.items()}}
        model.kill()


@pytest.fixture
async def web(
    request: pytest.FixtureRequest, environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[httpx.AsyncClient]:
    """Return a client of the example that a test's parameter names, which runs under a real server."""
    monkeypatch.syspath_prepend(ROOT / "examples/web")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with running(import_module(request.param).app) as url:
        async with httpx.AsyncClient(base_url=url, timeout=30) as client:
            yield client


async def eventually(web: httpx.AsyncClient, path: str, reached: Callable[[Any], bool], **options: Any) -> Any:
    """Return what the path answers as soon as that is as it should be."""
    async with asyncio.timeout(20):
        while not reached(found := (await web.get(path, **options)).json()):
            await asyncio.sleep(0.02)
    return found


def run(environment: Environment, *command: str | Path) -> str:
    whole = [sys.executable, "-W", "error", *command]
    done = subprocess.run(whole, env=environment, capture_output=True, text=True, timeout=180, cwd=LLM)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.promise(53, 54, 58)
@pytest.mark.parametrize("web", ["chat"], indirect=True)
async def test_a_web_chat_remembers_each_of_many_users_at_once(web: httpx.AsyncClient) -> None:
    async def say(user: str, message: str) -> str:
        answer = await web.post(f"/chat/{user}", json={"message": message})
        return str(answer.raise_for_status().json())

    users = [f"user{n}" for n in range(30)]
    said = await asyncio.gather(*(say(user, f"My name is {user}") for user in users))
    assert said == [f"You said: My name is {user}" for user in users]
    await eventually(web, "/stats", lambda counts: counts["stored"] >= 30)
    answers = await asyncio.gather(*(say(user, "Do you remember my name?") for user in users))
    assert [set(re.findall(r"user\d+", answer)) for answer in answers] == [{user} for user in users]


@pytest.mark.promise(55)
@pytest.mark.parametrize("web", ["chat_bearer"], indirect=True)
async def test_a_web_chat_behind_tokens_keeps_its_users_apart(web: httpx.AsyncClient) -> None:
    ada, bob, eve = ({"Authorization": f"Bearer token-of-{name}"} for name in ("ada", "bob", "eve"))
    for stranger in ({}, eve):
        assert (await web.post("/chat", json={"message": "hi"}, headers=stranger)).status_code == 401
    answer = await web.post("/chat", json={"message": "I live in Oslo"}, headers=ada)
    assert answer.json() == "You said: I live in Oslo"
    await eventually(web, "/memories", lambda kept: kept == ["I live in Oslo"], headers=ada)
    assert (await web.get("/memories", headers=bob)).json() == []


@pytest.mark.promise(57)
@pytest.mark.parametrize("web", ["chat_stream"], indirect=True)
async def test_a_web_stream_that_is_left_is_remembered_as_far_as_it_came(web: httpx.AsyncClient) -> None:
    whole = await web.get("/chat/ada", params={"message": "I live in Oslo"})
    assert "".join(re.findall(r'data: "(.*)"', whole.text)) == "You said: I live in Oslo"
    async with web.stream("GET", "/chat/bob", params={"message": "word " * 200}) as left:
        async for line in left.aiter_lines():
            if "word" in line:
                break
    kept = await eventually(web, "/memories/bob", lambda found: len(found) == 2)
    (reply,) = [memory for memory in kept if "assistant" in memory["tags"]]
    assert reply["tags"] == ["assistant", "partial"]
    assert 1 <= reply["text"].count("word") < 200


@pytest.mark.promise(59, 63, 109)
def test_an_agent_with_tools_is_captured_once_and_a_worker_keeps_facts(environment: Environment) -> None:
    agent = ["You said: I live in Oslo. Do I need an umbrella?", "user: I live in Oslo."]
    assert sorted(run(environment, LLM / "agent_loop.py").splitlines()) == agent
    Path(environment["OPENPROTO_PATH"]).unlink()
    assert run(environment, LLM / "worker.py").splitlines()[-4:] == [
        "all stored: True skipped: 1",
        "ada ['I like tea', 'I moved to Oslo']",
        "bob []",
        "cleo ['I sing']",
    ]


NOTEBOOK = """
import asyncio, re, sys
from pathlib import Path
cells = re.split(r"^# %%.*$", Path(sys.argv[1]).read_text(), flags=re.MULTILINE)

async def kernel():
    names = {}
    for cell in cells:
        exec(cell, names)
        await asyncio.sleep(0)

asyncio.run(kernel())
"""


@pytest.mark.promise(44, 75)
def test_a_notebook_runs_inside_a_loop_and_tests_wait_for_memories(environment: Environment) -> None:
    said = run(environment, "-c", NOTEBOOK, LLM / "notebook.py").splitlines()
    assert said[:2] == ["You said: I take my coffee black", "stored: True"]
    assert said[2].startswith("I remember: ")
    assert "I take my coffee black [" in said[2]
    assert "1 passed" in run(environment, "-m", "pytest", "-q", "-p", "no:cacheprovider", LLM / "test_my_app.py")
