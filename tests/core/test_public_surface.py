"""What `import openproto` gives, costs, and needs."""

from __future__ import annotations

import tomllib
from importlib.metadata import distribution, entry_points, packages_distributions, version
from pathlib import Path
from types import ModuleType
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

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


PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]


def test_the_base_install_is_small_and_the_extra_all_holds_every_extra_that_a_program_may_need() -> None:
    assert len(PROJECT["dependencies"]) <= 5
    inside = [name for line in EXTRAS["all"] for name in line.removeprefix("openproto[").removesuffix("]").split(",")]
    # Authors of backends ask for the suite by name, async brings nothing, and an integration is for those who already
    # have the library.
    integrations = {
        *("langgraph", "openai-agents", "anthropic", "mcp", "google-adk", "agent-framework", "strands"),
        *("pydantic-ai", "llama-index", "opentelemetry", "prometheus"),
    }
    assert set(inside) == set(EXTRAS) - {"all", "async", "conformance"} - integrations


BASE = """
import asyncio, sys
from importlib.abc import MetaPathFinder

class OnlyBase(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in sys.argv[2:]:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, OnlyBase())
from openproto import AsyncMemory, Memory

async def main():
    async with AsyncMemory("sqlite", path=sys.argv[1], embedder="none") as memory:
        await asyncio.gather(*(memory.add(f"note {n}", user_id="ada") for n in range(3)))
        print(len(await memory.search("note", "ada")))

asyncio.run(main())
with Memory("sqlite", path=sys.argv[1], embedder="none") as memory:
    print(len(memory.list("ada").items))
try:
    AsyncMemory("passthrough", base_url="http://127.0.0.1:1")
except ImportError as error:
    print(error)
"""


def needed(requirements: list[str], seen: set[str]) -> set[str]:
    """Return the distributions that the requirements bring along, themselves included."""
    for line in requirements:
        requirement = Requirement(line)
        name = canonicalize_name(requirement.name)
        if name not in seen and (requirement.marker is None or requirement.marker.evaluate({"extra": ""})):
            seen.add(name)
            needed(distribution(name).requires or [], seen)
    return seen


def test_the_base_install_is_asynchronous_and_its_extra_brings_nothing(run_python: Any, tmp_path: Path) -> None:
    assert EXTRAS["async"] == []
    base = needed(PROJECT["dependencies"], {"openproto"})
    installed = packages_distributions().items()
    others = [top for top, names in installed if base.isdisjoint(map(canonicalize_name, names))]
    assert {"asyncpg", "numpy"} <= {*others}
    ended = run_python(BASE, tmp_path / "memory.db", *others)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[:2] == ["3", "3"]
    assert "pip install 'openproto[passthrough]'" in ended.stdout


def test_each_provider_of_the_project_has_an_entry_point_and_is_found_without_it() -> None:
    points = {point.name: point.value for point in entry_points(group="openproto.providers")}
    assert {name: value for name, value in points.items() if value.startswith("openproto_adapters.")} == OWN
    for name in ("sqlite", "postgres"):
        assert provider_class(name).name == name
