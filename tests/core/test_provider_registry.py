"""From a provider's name, options, and environment to a client: entry points, near misses, and missing extras."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from fake_provider import FakeProvider

from openproto import AsyncMemory, Memory, Provider, UnknownProviderError, registry
from openproto.client import settings
from openproto.registry import provider_class, provider_names

Install: TypeAlias = Callable[..., None]
GOOD = """
from openproto import Provider
class Acme(Provider):
    name = "acme"
    requires = ()
    def __init__(self, url=None, *, timeout_ms=10): self.url = url
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Install a distribution with the extra `acme`, its entry point, and its module, as pip would."""
    monkeypatch.syspath_prepend(tmp_path)

    def into(source: str = GOOD, *, by: str = "acme", module: str = "acme_memory", name: str = "acme") -> None:
        info = tmp_path / f"{by}_memory-1.0.dist-info"
        info.mkdir()
        metadata = f"Metadata-Version: 2.1\nName: {by}-memory\nVersion: 1.0\nProvides-Extra: acme\n"
        info.joinpath("METADATA").write_text(metadata)
        info.joinpath("entry_points.txt").write_text(f"[openproto.providers]\n{name} = {module}:Acme\n")
        tmp_path.joinpath(f"{module}.py").write_text(source)
        monkeypatch.delitem(sys.modules, module, raising=False)

    return into


@pytest.mark.parametrize(("wrong", "right"), [("sqlit", "sqlite"), ("postgress", "postgres"), ("Postgres", "postgres")])
def test_a_near_miss_says_what_was_meant_and_a_far_one_what_is_installed(wrong: str, right: str) -> None:
    with pytest.raises(UnknownProviderError, match=f"no provider '{wrong}'; did you mean '{right}'"):
        AsyncMemory(wrong)
    with pytest.raises(UnknownProviderError, match=f"no provider 'xyzzy'; installed: {', '.join(provider_names())}"):
        Memory("xyzzy")


@pytest.mark.parametrize(("wrong", "right"), [("pth", "path"), ("timeuot", "timeout")])
def test_an_unknown_option_is_a_type_error_that_names_the_nearest_and_all(wrong: str, right: str) -> None:
    options: dict[str, Any] = {wrong: 1}
    with pytest.raises(TypeError, match=f"unexpected option '{wrong}'; did you mean '{right}'") as caught:
        AsyncMemory("sqlite", **options)
    assert all(
        option in str(caught.value)
        for option in (*registry.provider_options(provider_class("sqlite")), *registry.CLIENT_OPTIONS)
    )
    named = inspect.signature(AsyncMemory.__init__).parameters.keys() - {"self", "provider", "options"}
    assert {*named, "audit_reads"} == set(registry.CLIENT_OPTIONS)


def test_a_third_partys_provider_is_found_by_its_name_and_takes_its_options(install: Install) -> None:
    install(name="aardvark")
    assert provider_names() == sorted(provider_names())
    assert provider_names()[0] == "aardvark"
    assert list(registry.provider_options(provider_class("aardvark"))) == ["url", "timeout_ms"]
    memory = AsyncMemory(provider="aardvark", url="http://x")
    assert memory._session.provider.url == "http://x"  # type: ignore[attr-defined]
    assert repr(Memory("aardvark", url="http://x")) == "<Memory provider='acme'>"
    with pytest.raises(TypeError, match="'url'"):
        AsyncMemory(registry.make_provider("aardvark", {}), url="u")


@pytest.mark.parametrize("module", ["acme_sdk_that_is_not_there", "acme_not_there.child", "json.not_there"])
def test_a_missing_package_is_named_also_if_it_is_needed_only_to_open(install: Install, module: str) -> None:
    install(GOOD.replace("()", f"('json', {module!r})"))
    with pytest.raises(ImportError) as caught:
        AsyncMemory("acme")
    assert str(caught.value) == f"provider 'acme' needs {module!r}: pip install 'acme-memory[acme]'"
    install("import acme_sdk_that_is_not_there", by="plain", module="plain_memory", name="plain")
    with pytest.raises(ImportError, match="pip install 'acme_sdk_that_is_not_there'") as caught:
        provider_class("plain")
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)
    assert str(registry.missing_extra("postgres", "asyncpg")).endswith("pip install 'openproto[postgres]'")


@pytest.mark.parametrize(
    ("source", "error", "text"),
    [
        ("import acme_memory.no_such_part", ModuleNotFoundError, "acme_memory"),
        ("from json import no_such_name", ImportError, "no_such_name"),
        ("1 / 0", ZeroDivisionError, "division"),
        ("class Acme: pass", TypeError, "'acme'.*not a Provider"),
    ],
)
def test_a_broken_adapter_raises_its_own_error(install: Install, source: str, error: Any, text: str) -> None:
    install(source)
    with pytest.raises(error, match=text) as caught:
        provider_class("acme")
    assert "pip install" not in str(caught.value)


def test_two_distributions_may_register_one_name_only_for_one_class(install: Install) -> None:
    install(by="one")
    install(by="two")
    assert provider_class("acme").name == "acme"
    install(by="three", module="another")
    with pytest.raises(UnknownProviderError, match="'acme' is registered by both "):
        provider_class("acme")


OPTIONS = {"url": "a url", "base_url": "a base", "api_key": "k", "path": "p", "embedder": "e", "schema": "s"}
BOUNDS = {"timeout": 1.5, "retries": 7, "close_timeout": 2.0, "max_concurrency": 3, "app": "x"}


class Taker(Provider):
    """Takes every option that a variable of the environment can set."""

    def __init__(
        self, *, url: Any = 0, base_url: Any = 0, api_key: Any = 0, path: Any = 0, embedder: Any = 0, schema: Any = 0
    ) -> None:
        self.given = {name: value for name, value in locals().items() if name in OPTIONS and value}


class Plain(Provider):
    """Takes no option at all."""


@pytest.fixture(autouse=True)
def only_these(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("OPENPROTO_")]:
        monkeypatch.delenv(name)
    known = {"taker": Taker, "plain": Plain}
    original = registry.provider_class
    for module in (registry, settings):
        monkeypatch.setattr(module, "provider_class", lambda name: known.get(name) or original(name))


def session(client: Any) -> Any:
    return client._memory._session if isinstance(client, Memory) else client._session


@pytest.mark.parametrize("cls", [AsyncMemory, Memory])
def test_variables_become_options_and_arguments_precede(cls: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PROVIDER", "TIMEOUT"):
        monkeypatch.setenv(f"OPENPROTO_{name}", "")  # which is as if it were not set
    client = cls.from_env()
    assert (type(client), session(client).provider.name, session(client).options.timeout) == (cls, "sqlite", 30.0)
    for name, value in {"provider": "taker", **OPTIONS, **BOUNDS}.items():
        monkeypatch.setenv(f"OPENPROTO_{name.upper()}", str(value))
    made = session(cls.from_env())
    assert made.provider.given == OPTIONS
    assert {name: getattr(made.options, name) for name in BOUNDS} == BOUNDS
    monkeypatch.setenv("OPENPROTO_PROVIDER", "no such provider")
    made = session(cls.from_env(provider="taker", url="mine", timeout=2))
    assert (made.provider.given, made.options.timeout) == ({**OPTIONS, "url": "mine"}, 2)


def test_of_what_a_provider_does_not_take_only_an_argument_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENPROTO_PROVIDER", "plain")
    monkeypatch.setenv("OPENPROTO_URL", "postgres://somewhere")
    monkeypatch.setenv("OPENPROTO_TIMEOUT", "4")
    assert isinstance(session(AsyncMemory.from_env()).provider, Plain)
    with pytest.raises(TypeError, match="'url'"):
        AsyncMemory.from_env(url="mine")
    provider = FakeProvider()
    made = session(AsyncMemory.from_env(provider=provider))
    assert (made.provider, made.options.timeout) == (provider, 4)


@pytest.mark.parametrize(
    ("name", "value", "error", "text"),
    [
        ("OPENPROTO_PROVIDER", "sqlit", UnknownProviderError, "sqlite"),
        ("OPENPROTO_TIMEOUT", "soon", ValueError, "OPENPROTO_TIMEOUT"),
        ("OPENPROTO_RETRIES", "many", ValueError, "OPENPROTO_RETRIES"),
    ],
)
def test_a_variable_that_makes_no_sense_is_refused_and_no_credential_is_shown(
    name: str, value: str, error: type[Exception], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENPROTO_URL", "postgres://ada:hunter2@db")
    monkeypatch.setenv("OPENPROTO_API_KEY", "hunter2")
    shown = settings.Settings()
    monkeypatch.setenv(name, value)
    with pytest.raises(error, match=text) as caught:
        AsyncMemory.from_env()
    assert "hunter2" not in f"{shown!r} {shown} {shown.model_dump()} {caught.value}"
