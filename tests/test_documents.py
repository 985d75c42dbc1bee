"""Programs, commands, and figures of the README and of the pages are as they stand, and print what they say."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import socket
import ssl
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks.__main__ import BENCHMARKS, DOCUMENTS, EXACT, FIGURES, RUNS
from benchmarks.report import quoted
from benchmarks.scaling import SEARCH_CPU_MS, Load, search_ms, simulate
from mutations.__main__ import read_table
from openproto import AsyncMemory
from openproto.embedding import Embedder
from openproto.portable.formats import NAMES
from openproto.registry import OWN, make_provider
from openproto.server import ServerSettings, create_app, running
from openproto.server.keys import new_key

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
README, OPERATING, EMBEDDERS, MOVING, PROJECT = (
    (ROOT / name).read_text(encoding="utf-8")
    for name in ("README.md", "docs/operating.md", "docs/embedders.md", "docs/moving.md", "pyproject.toml")
)
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
(PROVIDERS,) = [block for block in BLOCKS if "from_env" in block]
(AROUND_LLM,) = [block for block in BLOCKS if "wrap(" in block]
FAKE_LLM = ROOT / "tests/llm/fake_llm.py"
(SERVE,) = re.findall(r"^\$ (openproto serve .*)$", README, re.MULTILINE)


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OPENPROTO_")}
    return {**kept, "HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path), "PATH": f"{BIN}:{kept['PATH']}"}


def test_the_server_starts_answers_and_ends(home: dict[str, str], tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = shlex.split(SERVE.replace("8080", str(port)))
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


def test_each_way_to_make_a_client_makes_one(home: dict[str, str], tmp_path: Path, run_python: Any) -> None:
    made = (f"print({line.partition('  #')[0]})" for line in PROVIDERS.strip().splitlines())
    ran = run_python("\n".join(["from openproto import AsyncMemory", *made]), env=home, cwd=tmp_path)
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
    (program,) = re.findall(r"```python\n(.*?)```", EMBEDDERS, re.DOTALL)
    exec(program, names)
    assert isinstance(names["FastEmbed"](), Embedder)


def commands(blocks: list[str]) -> list[str]:
    return [line.removeprefix("$ ") for block in blocks for line in block.splitlines()]


COFFEE = "Ada takes her coffee black"
OF_README = re.findall(r"^\$ (openproto (?!serve).*)$", README, re.MULTILINE)
OF_MOVING = commands(re.findall(r"<!-- run -->\n```console\n(.*?)```", MOVING, re.DOTALL))
OF_BACKUP = [
    f"openproto add '{COFFEE}' --user ada",
    *commands(re.findall(r"```console\n(\$ openproto backup.*?)```", OPERATING, re.DOTALL)),
    "openproto list --path rehearsal.db --user ada > rehearsed",
]


@pytest.mark.parametrize(
    ("lines", "least", "file", "text", "options"),
    [
        (OF_README, 4, "memories.jsonl", COFFEE, {}),
        (OF_MOVING, 8, "ada.jsonl", "Ada likes jazz", {"OPENPROTO_EMBEDDER": "none"}),
        (OF_BACKUP, 4, "rehearsed", COFFEE, {"OPENPROTO_EMBEDDER": "none", "OPENPROTO_PATH": "memory.db"}),
    ],
    ids=["readme", "moving", "operating"],
)
def test_the_commands_work_one_after_the_other(
    home: dict[str, str], tmp_path: Path, lines: list[str], least: int, file: str, text: str, options: dict[str, str]
) -> None:
    assert len(lines) >= least
    for line in lines:
        ran = subprocess.run(["sh", "-c", line], env=home | options, cwd=tmp_path, capture_output=True, text=True)
        assert ran.returncode == 0, f"{line}\n{ran.stdout}\n{ran.stderr}"
    assert text in (tmp_path / file).read_text()


def test_the_page_about_moving_names_every_format() -> None:
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


def test_the_table_has_every_provider_of_the_project_and_how_its_calls_are_cancelled() -> None:
    rows = re.findall(r"^\| `(\w+)` \| `openproto\[\w+\]` \|.*\| ([a-z, ]+) \|$", README, re.MULTILINE)
    assert {name for name, _ in rows} == OWN.keys()
    said = {(name, tier) for name, tiers in rows for tier in tiers.split(", ")}
    assert said == {(name, tier) for name, _, tier in CLIENTS}
    for name, options, tier in CLIENTS:
        assert make_provider(name, options).cancellation == tier


HEADING_OR_PROGRAM = re.compile(r"^## ([^\n]*)$|^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PRINTED = re.compile(r"^ *print\(.*\)  # (.*)$", re.MULTILINE)
"""What a line prints; `...` stands for what differs from run to run."""


def programs() -> Iterator[Any]:
    """Yield each program; those of the README that want a service of their own are run above."""
    for name in ("docs/integrations.md", "docs/beside.md", "README.md"):
        heading = name
        for number, found in enumerate(HEADING_OR_PROGRAM.finditer((ROOT / name).read_text())):
            heading = found[1] or heading
            if found[2] and (name != "README.md" or PRINTED.search(found[2])):
                yield pytest.param(found[2], id=f"{heading} {number}")


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
    assert set(EXTRAS) <= tomllib.loads(PROJECT)["project"]["optional-dependencies"].keys()


PAGE_BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", OPERATING, re.MULTILINE | re.DOTALL)
ENVIRONMENT, UNIT = (text for kind, text in PAGE_BLOCKS if kind == "ini")
CONTAINER, NGINX = (text for kind, text in PAGE_BLOCKS if kind in ("dockerfile", "nginx"))
HOST = "memory.example.com"


def test_a_server_takes_the_documented_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps([new_key("laptop", ["ada"])[1].model_dump(mode="json")]))
    for text in (ENVIRONMENT, CONTAINER):
        found = dict(re.findall(r"(OPENPROTO_SERVER_\w+)=(\S+)", text))
        with monkeypatch.context() as patched:
            for name, value in found.items():
                patched.setenv(name, str(keys) if name.endswith("KEYS_FILE") else value)
            settings = ServerSettings()
        assert settings.keys
        assert {name.removeprefix("OPENPROTO_SERVER_").lower() for name in found} <= settings.model_fields_set


def test_the_containers_health_check_fails_where_nothing_answers(tmp_path: Path) -> None:
    (command,) = re.findall(r"CMD (\[\"python.*\])", CONTAINER)
    memory = AsyncMemory("sqlite", path=str(tmp_path / "memory.db"), embedder="none")
    with running(create_app(memory, ServerSettings())) as url:
        asked = [sys.executable, "-c", json.loads(command)[2].replace("http://127.0.0.1:8080", url)]
        assert subprocess.run(asked).returncode == 0
    assert subprocess.run(asked, capture_output=True).returncode == 1


def test_what_the_page_says_to_look_for_is_what_the_code_says() -> None:
    sources = [*ROOT.glob("openproto/**/*.py"), *ROOT.glob("adapters/**/*.py")]
    said = re.sub(r"\"\n\s+f?\"", "", "\n".join(path.read_text(encoding="utf-8") for path in sources))
    (table,) = re.findall(r"^## What to do when\n(.*)", OPERATING, re.MULTILINE | re.DOTALL)
    quoted = re.findall(r"^\| \"(.*?)\"", table, re.MULTILINE)
    assert len(quoted) >= 6
    assert [text for text in quoted if text not in said] == []
    figures = {
        name.removesuffix("_count").removesuffix("_bucket") for name in re.findall(r"openproto_call\w+", OPERATING)
    }
    assert figures == {"openproto_call_duration_seconds", "openproto_call_retries_total"}
    assert [name for name in figures if name.removesuffix("_total") not in said] == []


@contextmanager
def nginx(folder: Path, url: str) -> Iterator[str]:
    """Run the page's nginx in front of a server, on a free port, with a certificate of its own."""
    certificate, key = folder / "host.pem", folder / "host.key"
    made = f"openssl req -x509 -nodes -days 2 -subj /CN={HOST} -addext subjectAltName=DNS:{HOST}"
    subprocess.run([*made.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    site = NGINX.replace("listen 443", f"listen {address}").replace("127.0.0.1:8080", httpx.URL(url).netloc.decode())
    site = re.sub(r"/etc/ssl/\S+\.pem", str(certificate), site)
    site = re.sub(r"/etc/ssl/\S+\.key", str(key), site).replace("/var/log/nginx", str(folder))
    places = " ".join(f"{kind}_temp_path {folder}/{kind};" for kind in "client_body proxy fastcgi uwsgi scgi".split())
    whole = f"daemon off; master_process off; pid {folder}/pid; events {{}} http {{ {places}\n{site} }}"
    (folder / "nginx.conf").write_text(whole)
    command = [shutil.which("nginx") or "/usr/sbin/nginx", "-p", folder, "-e", folder / "error.log", "-c", "nginx.conf"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        for _ in range(200):
            with suppress(OSError):
                socket.create_connection(("127.0.0.1", int(address.split(":")[1]))).close()
                break
            time.sleep(0.05)
        try:
            assert process.poll() is None, process.communicate()[1]
            yield f"https://{address}"
        finally:
            process.terminate()


@pytest.mark.operating
def test_the_proxy_hands_on_what_the_server_needs_and_logs_nothing_of_the_memories(tmp_path: Path) -> None:
    key, entry = new_key("laptop", ["ada"])
    memory = AsyncMemory("sqlite", path=str(tmp_path / "memory.db"), embedder="none")
    app = create_app(memory, ServerSettings(keys=[entry], allowed_hosts=[HOST]))
    with running(app) as url, nginx(tmp_path, url) as front:
        trusted = ssl.create_default_context(cafile=str(tmp_path / "host.pem"))
        client = httpx.Client(base_url=front, verify=trusted, headers={"Host": HOST, "X-API-Key": key}, timeout=30)

        def ask(method: str, path: str, **given: Any) -> httpx.Response:
            return client.request(method, path, extensions={"sni_hostname": HOST}, **given)

        def refused(method: str, path: str, **given: Any) -> str:
            return str(ask(method, path, **given).json()["error"]["code"])

        made = ask("POST", "/memories", json={"content": "xyzzy tea"})
        assert (made.status_code, made.headers["strict-transport-security"]) == (201, "max-age=31536000")
        hits = ask("GET", "/memories/search", params={"q": "xyzzy"}).json()["results"]
        assert [hit["memory"]["id"] for hit in hits] == [made.json()["id"]]
        missing = ask("GET", "/memories/a%2Fb")
        assert (missing.status_code, "no such route" in missing.text) == (404, False)
        assert refused("POST", "/memories", json={"content": "x" * 1_500_000}) == "payload_too_large"
        assert refused("GET", "/memories", headers={"Host": "evil.example.com"}) == "scope_denied"
        client.close()
    log = (tmp_path / "memories.log").read_text()
    assert made.headers["x-request-id"] in log
    assert "xyzzy" not in log


@pytest.mark.operating
def test_systemd_takes_the_unit_and_hadolint_the_container_file(tmp_path: Path) -> None:
    unit = tmp_path / "openproto.service"
    unit.write_text(UNIT.replace("/opt/openproto/bin/openproto", str(BIN / "openproto")))
    verified = subprocess.run(["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True)
    assert (verified.returncode, [line for line in verified.stderr.splitlines() if unit.name in line]) == (0, [])
    (tmp_path / "Containerfile").write_text(CONTAINER)
    hadolint = shutil.which("hadolint", path=f"{BIN}{os.pathsep}{os.environ['PATH']}") or "hadolint"
    looked = subprocess.run([hadolint, tmp_path / "Containerfile"], capture_output=True, text=True)
    assert looked.returncode == 0, looked.stdout


REPORT = json.loads(FIGURES.read_text(encoding="utf-8"))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_a_document_quotes_the_figures_of_the_run_that_is_kept(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    assert "<!-- figures" in text
    assert quoted(text, REPORT) == text


def test_the_run_that_is_kept_is_whole() -> None:
    assert not REPORT["quick"]
    assert [*dict.fromkeys(figure["benchmark"] for figure in REPORT["figures"])] == [*BENCHMARKS]
    timed = [one for one in REPORT["figures"] if one["value"] is not None and one["benchmark"] not in EXACT]
    assert all(len(figure["detail"]["runs"]) == RUNS for figure in timed)


def test_the_simulator_repeats_itself_and_queues_what_is_too_much_for_the_cores() -> None:
    load = Load(users=200_000, shards=4, cores=1, peak=10.0, seconds=4.0)
    once, twice = simulate(load), simulate(replace(load, shards=8))
    assert simulate(load) == once
    assert twice.busiest_cores < 0.8 * once.busiest_cores
    assert (twice.hot_gb, twice.stored_gb) == (once.hot_gb / 2, once.stored_gb)
    crowded = replace(load, users=5_000_000, seconds=0.5)
    assert simulate(crowded).p99_ms > 2 * once.p99_ms
    assert simulate(replace(crowded, disk_gb=1.0)).first_limit.startswith("disk")
    for size, cost in SEARCH_CPU_MS:
        assert search_ms(size) == pytest.approx(cost)
        assert search_ms(size * 0.9) < search_ms(size) < search_ms(size * 1.1)


def test_each_fault_that_the_tests_must_notice_can_still_be_made() -> None:
    faults = [fault for table in ("table.toml", "suite.toml") for fault in read_table(table)]
    stale = [fault for fault in faults if (ROOT / fault["file"]).read_text("utf-8").count(fault["old"]) != 1]
    assert faults
    assert not stale
