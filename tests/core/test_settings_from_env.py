"""`from_env()`: one environment for every provider."""

from __future__ import annotations

import os
from typing import Any

import pytest
from fake_provider import FakeProvider

from openproto import AsyncMemory, Memory, Provider, UnknownProviderError, registry, settings

both = pytest.mark.parametrize("cls", [AsyncMemory, Memory])


class Acme(Provider):
    """Takes every option that a variable of the environment can set."""

    def __init__(
        self,
        *,
        url: str | None = None,
        base_url: str | None = None,
        api_key: str | None = None,
        path: str | None = None,
        embedder: str | None = None,
        schema: str | None = None,
    ) -> None:
        self.given = {k: v for k, v in locals().items() if k not in ("self",) and v is not None}


class Plain(Provider):
    """Takes no option at all."""


@pytest.fixture(autouse=True)
def only_these(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("OPENPROTO_")]:
        monkeypatch.delenv(name)
    known = {"acme": Acme, "plain": Plain}
    original = registry.provider_class

    def lookup(name: str) -> Any:
        return known.get(name) or original(name)

    monkeypatch.setattr(registry, "provider_class", lookup)
    monkeypatch.setattr(settings, "provider_class", lookup)


def session(client: Any) -> Any:
    return client._memory._session if isinstance(client, Memory) else client._session


@both
def test_without_any_variable_it_is_the_default_client(cls: Any) -> None:
    client = cls.from_env()
    assert type(client) is cls
    assert session(client).provider.name == "sqlite"


@pytest.mark.promise(8)
@pytest.mark.promise(29)
@both
def test_each_variable_becomes_the_option_of_its_name(cls: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENPROTO_PROVIDER", "acme")
    for name in ("URL", "BASE_URL", "API_KEY", "PATH", "EMBEDDER", "SCHEMA"):
        monkeypatch.setenv(f"OPENPROTO_{name}", f"a {name.lower()}")
    given = session(cls.from_env()).provider.given
    assert given == {n: f"a {n}" for n in ("url", "base_url", "api_key", "path", "embedder", "schema")}


@both
def test_the_options_of_the_client_are_read_too(cls: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENPROTO_PROVIDER", "plain")
    for name, value in {
        "TIMEOUT": "1.5",
        "RETRIES": "7",
        "CLOSE_TIMEOUT": "2",
        "MAX_CONCURRENCY": "3",
        "APP": "x",
    }.items():
        monkeypatch.setenv(f"OPENPROTO_{name}", value)
    options = session(cls.from_env()).options
    assert (options.timeout, options.retries, options.close_timeout, options.max_concurrency, options.app) == (
        1.5, 7, 2.0, 3, "x",
    )  # fmt: skip


def test_a_variable_that_the_provider_has_no_use_for_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENPROTO_PROVIDER", "plain")
    monkeypatch.setenv("OPENPROTO_URL", "postgres://somewhere")
    assert isinstance(session(AsyncMemory.from_env()).provider, Plain)


def test_an_empty_variable_is_no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENPROTO_PROVIDER", "")
    monkeypatch.setenv("OPENPROTO_TIMEOUT", "")
    client = AsyncMemory.from_env()
    assert (session(client).provider.name, session(client).options.timeout) == ("sqlite", 30.0)


@both
def test_what_is_given_beats_the_environment(cls: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENPROTO_PROVIDER", "no such provider")
    monkeypatch.setenv("OPENPROTO_URL", "theirs")
    monkeypatch.setenv("OPENPROTO_TIMEOUT", "1")
    client = cls.from_env(provider="acme", url="mine", timeout=2)
    assert (session(client).provider.given, session(client).options.timeout) == ({"url": "mine"}, 2)


def test_what_is_given_is_never_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENPROTO_PROVIDER", "plain")
    with pytest.raises(TypeError, match="'url'"):
        AsyncMemory.from_env(url="mine")


def test_a_provider_object_takes_the_clients_options_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENPROTO_TIMEOUT", "4")
    monkeypatch.setenv("OPENPROTO_URL", "elsewhere")
    provider = FakeProvider()
    client = AsyncMemory.from_env(provider=provider)
    assert (session(client).provider, session(client).options.timeout) == (provider, 4)


def test_an_unknown_provider_in_the_environment_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENPROTO_PROVIDER", "sqlit")
    with pytest.raises(UnknownProviderError, match="sqlite"):
        AsyncMemory.from_env()


def test_a_variable_that_makes_no_sense_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENPROTO_TIMEOUT", "soon")
    with pytest.raises(ValueError, match="OPENPROTO_TIMEOUT"):
        AsyncMemory.from_env()


def test_settings_never_show_a_credential(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENPROTO_URL", "postgres://ada:hunter2@db")
    monkeypatch.setenv("OPENPROTO_API_KEY", "hunter2")
    shown = settings.Settings()
    assert "hunter2" not in f"{shown!r} {shown} {shown.model_dump()}"


def test_a_refused_variable_takes_no_credential_into_the_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENPROTO_API_KEY", "hunter2")
    monkeypatch.setenv("OPENPROTO_RETRIES", "many")
    with pytest.raises(ValueError) as caught:
        AsyncMemory.from_env()
    assert "hunter2" not in str(caught.value)
