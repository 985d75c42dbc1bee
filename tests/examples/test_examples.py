"""The examples, run as their readers would run them: the quick start, a third party's backend, the web, and LLMs."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

import httpx
import pytest
from openproto_conformance.emulators.registry import emulator_class

from openproto.server import running

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
LLM, WEB = EXAMPLES / "llm", EXAMPLES / "web"

Environment: TypeAlias = dict[str, str]


def store(folder: Path) -> Environment:
    """Return the variables of a file without an embedder: quick to open, and what is found is not the point here."""
    values = {"PROVIDER": "sqlite", "PATH": str(folder / "memory.db"), "EMBEDDER": "none"}
    return {f"OPENPROTO_{name}": value for name, value in values.items()}


def load(name: str) -> ModuleType:
    module = ModuleType(name)
    exec(compile((WEB / f"{name}.py").read_text(), name, "exec", dont_inherit=True), module.__dict__)
    return module


@pytest.fixture(params=["fastapi_notes", "starlette_notes"])
def name(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    found: str = request.param
    values = store(tmp_path) if found.endswith("_notes") else request.getfixturevalue("environment")
    for variable, value in values.items():
        monkeypatch.setenv(variable, value)
    return found


@pytest.fixture
def app(name: str) -> Any:
    return load(name).app


@pytest.fixture
async def http(app: Any) -> AsyncIterator[httpx.AsyncClient]:
    with running(app) as url:
        async with httpx.AsyncClient(base_url=url, timeout=30) as client:
            yield client


async def add(http: httpx.AsyncClient, name: str, user: str, text: str) -> httpx.Response:
    if name == "fastapi_notes":
        return await http.post(f"/{user}/notes", json={"text": text})
    return await http.post(f"/{user}/notes", content=text)


async def test_one_client_serves_many_requests_at_once(http: httpx.AsyncClient, name: str) -> None:
    added = await asyncio.gather(*(add(http, name, f"user{number % 5}", f"note {number}") for number in range(50)))
    assert {response.status_code for response in added} == {201}
    searches = (http.get(f"/user{user}/notes", params={"q": "note"}) for user in range(5))
    for user, found in enumerate(await asyncio.gather(*searches)):
        assert sorted(found.json()) == sorted(f"note {number}" for number in range(user, 50, 5))


async def test_a_background_task_remembers_and_an_error_has_its_status(http: httpx.AsyncClient, name: str) -> None:
    assert (await http.post("/ada/visits", params={"page": "prices"})).status_code == 202
    await eventually(http, "/ada/notes", lambda found: found == ["visited prices"], params={"q": "prices"})
    refused = await add(http, name, "ada", " ")
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "invalid_request")


@pytest.mark.parametrize("name", ["fastapi_notes"], indirect=True)
async def test_a_reader_that_leaves_ends_its_stream(http: httpx.AsyncClient, app: Any, name: str) -> None:
    memory = app.state.memory
    async with http.stream("GET", "/ada/follow") as stream:
        lines = stream.aiter_lines()
        assert await anext(lines) == "following"
        await add(http, name, "ada", "fresh news")
        assert await anext(lines) == "fresh news"
    await asyncio.sleep(0.3)
    before = memory.stats().verbs["list"].calls
    await asyncio.sleep(0.5)
    assert memory.stats().verbs["list"].calls == before
    assert memory.stats().in_flight == 0


@pytest.mark.parametrize("name", ["starlette_notes"], indirect=True)
async def test_an_export_streams_every_page(http: httpx.AsyncClient, name: str) -> None:
    for number in range(25):
        await add(http, name, "ada", f"note {number}")
    async with http.stream("GET", "/ada/export") as stream:
        contents = [json.loads(line)["content"] async for line in stream.aiter_lines()]
    assert contents == [f"note {number}" for number in range(24, -1, -1)]


def test_closing_the_application_closes_its_client(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = load(name)
    made: list[Any] = []

    class Watched(module.AsyncMemory):  # type: ignore[misc,name-defined]
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            made.append(self)

    monkeypatch.setattr(module, "AsyncMemory", Watched)
    with running(module.app) as url:
        httpx.get(f"{url}/ada/notes", params={"q": "tea"})
    (memory,) = made
    assert memory._session._closed


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[Environment]:
    command = [sys.executable, str(ROOT / "tests/llm/fake_llm.py"), "0.02"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as model:
        assert model.stdout
        url = model.stdout.readline().strip()
        kept = {name: value for name, value in os.environ.items() if not name.startswith("OPENPROTO_")}
        openai = {"OPENAI_BASE_URL": f"{url}/v1", "OPENAI_API_KEY": "k"}
        anthropic = {"ANTHROPIC_BASE_URL": url, "ANTHROPIC_API_KEY": "k"}
        yield {**kept, **openai, **anthropic, **store(tmp_path)}
        model.kill()


async def eventually(http: httpx.AsyncClient, path: str, reached: Callable[[Any], bool], **options: Any) -> Any:
    async with asyncio.timeout(20):
        while not reached(found := (await http.get(path, **options)).json()):
            await asyncio.sleep(0.02)
    return found


def run(environment: Environment, *command: str | Path) -> str:
    whole = [sys.executable, "-W", "error", *command]
    done = subprocess.run(whole, env=environment, capture_output=True, text=True, timeout=180, cwd=LLM)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("name", ["chat"], indirect=True)
async def test_a_web_chat_remembers_each_of_many_users_at_once(http: httpx.AsyncClient) -> None:
    async def say(user: str, message: str) -> str:
        answer = await http.post(f"/chat/{user}", json={"message": message})
        return str(answer.raise_for_status().json())

    users = [f"user{n}" for n in range(30)]
    said = await asyncio.gather(*(say(user, f"My name is {user}") for user in users))
    assert said == [f"You said: My name is {user}" for user in users]
    await eventually(http, "/stats", lambda counts: counts["stored"] >= 30)
    answers = await asyncio.gather(*(say(user, "Do you remember my name?") for user in users))
    assert [set(re.findall(r"user\d+", answer)) for answer in answers] == [{user} for user in users]


@pytest.mark.parametrize("name", ["chat_bearer"], indirect=True)
async def test_a_web_chat_behind_tokens_keeps_its_users_apart(http: httpx.AsyncClient) -> None:
    ada, bob, eve = ({"Authorization": f"Bearer token-of-{name}"} for name in ("ada", "bob", "eve"))
    for stranger in ({}, eve):
        assert (await http.post("/chat", json={"message": "hi"}, headers=stranger)).status_code == 401
    answer = await http.post("/chat", json={"message": "I live in Oslo"}, headers=ada)
    assert answer.json() == "You said: I live in Oslo"
    await eventually(http, "/memories", lambda kept: kept == ["I live in Oslo"], headers=ada)
    assert (await http.get("/memories", headers=bob)).json() == []


@pytest.mark.parametrize("name", ["chat_stream"], indirect=True)
async def test_a_web_stream_that_is_left_is_remembered_as_far_as_it_came(http: httpx.AsyncClient) -> None:
    whole = await http.get("/chat/ada", params={"message": "I live in Oslo"})
    assert "".join(re.findall(r'data: "(.*)"', whole.text)) == "You said: I live in Oslo"
    async with http.stream("GET", "/chat/bob", params={"message": "word " * 200}) as left:
        async for line in left.aiter_lines():
            if "word" in line:
                break
    kept = await eventually(http, "/memories/bob", lambda found: len(found) == 2)
    (reply,) = [memory for memory in kept if "assistant" in memory["tags"]]
    assert reply["tags"] == ["assistant", "partial"]
    assert 1 <= reply["text"].count("word") < 200


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


def test_a_notebook_runs_inside_a_loop_and_tests_wait_for_memories(environment: Environment) -> None:
    said = run(environment, "-c", NOTEBOOK, LLM / "notebook.py").splitlines()
    assert said[:2] == ["You said: I take my coffee black", "stored: True"]
    assert said[2].startswith("I remember: ")
    assert "I take my coffee black [" in said[2]
    assert "1 passed" in run(environment, "-m", "pytest", "-q", "-p", "no:cacheprovider", LLM / "test_my_app.py")


SAYS = ["done True", "True Ada takes her coffee black"]


def says(provider: str, home: Path, **environment: str) -> list[str]:
    vendors = ("OPENPROTO_", "LETTA_", "MEM0_", "MEMORYSYNC_", "MEMSY_", "SUPERMEMORY_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(vendors)}
    given = {"HOME": str(home), "XDG_DATA_HOME": str(home), "OPENPROTO_PROVIDER": provider, **environment}
    ran = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", EXAMPLES / "quickstart.py"],
        env={**kept, **given},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    return ran.stdout.splitlines()


@pytest.mark.parametrize("provider", ["letta", "mem0", "memorysync", "memsy", "supermemory"])
def test_the_quick_start_runs_as_it_stands_on_a_hosted_backend(provider: str, tmp_path: Path) -> None:
    with emulator_class(provider)() as vendor:
        options = vendor.provider_options()
        # One of the vendors has variables of its own, which are enough.
        prefix = "MEMORYSYNC" if provider == "memorysync" else "OPENPROTO"
        named = {f"{prefix}_{name.upper()}": options[name] for name in ("base_url", "api_key")}
        assert says(provider, tmp_path, **named) == SAYS
        assert vendor.violations == []


def test_the_quick_start_runs_as_it_stands_on_a_file_in_its_own_process(tmp_path: Path) -> None:
    assert says("sqlite", tmp_path, **store(tmp_path)) == SAYS


# What ends before it can be interrupted or overtaken is not seen, and how often that is depends on the machine.
CERTIFIED = re.compile(r"^acme: conforms · 7/9 verbs · cancellation native( · \d+ unseen)? · quick$", re.MULTILINE)
VERBS = ["add", "search", "context", "get", "list", "delete", "capabilities"]


def test_it_is_installed_found_and_certified_and_its_own_tests_are_the_suite(tmp_path: Path) -> None:
    bin, work = tmp_path / "venv/bin", tmp_path / "acme-memory"

    def run(*command: str | Path) -> str:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("OPENPROTO_", "PYTHON"))}
        done = subprocess.run([bin / command[0], *command[1:]], cwd=work, env=kept, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    shutil.copytree(EXAMPLES / "acme-memory", work, ignore=shutil.ignore_patterns("__pycache__", ".pytest_cache"))
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    # The libraries are lent, not installed again; the editable project among them cannot be reached this way.
    (site,) = (tmp_path / "venv/lib").glob("python*/site-packages")
    (site / "lent.pth").write_text(sysconfig.get_path("purelib"))
    options = ("--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--disable-pip-version-check")
    run("python", "-m", "pip", "install", "--ignore-installed", *options, ROOT, work)
    where = run("python", "-c", "import openproto; print(openproto.__file__)")
    assert where.startswith(str(bin.parent)), "the project under test is the one that was installed"
    assert "acme\tacme-memory 1.0.0\tready" in run("openproto", "providers")

    said = run("openproto", "conformance", "acme", "--quick", "--report", "report.json")
    assert CERTIFIED.search(said)
    (report,) = json.loads((work / "report.json").read_text())["reports"]
    assert (report["verdict"], report["provider_version"], report["verbs"]) == ("conforms", "1.0.0", VERBS)
    assert {"passed", "refused"} <= set(report["tally"]) <= {"passed", "refused", "nonstrict", "unseen"}
    assert "| verbs | 7/9 |" in run("openproto", "conformance", "matrix", "report.json")

    plugins = ("-p", "no:cacheprovider", "-p", "no:asyncio")  # lent with the libraries; the suite needs neither
    said = run("python", "-m", "pytest", "-q", "--openproto-quick", "-k", "basics", *plugins)
    assert "acme: incomplete · 7/9 verbs" in said
