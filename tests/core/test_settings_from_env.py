"""`from_env()`: one environment for every provider."""

from __future__ import annotations

import os
from typing import Any

import pytest
from fake_provider import FakeProvider

from openproto import AsyncMemory, Memory, Provider, UnknownProviderError, registry
from openproto.client import settings

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
def test_without_any_variable_it_is_the_default_client(cls: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PROVIDER", "TIMEOUT"):
        monkeypatch.setenv(f"OPENPROTO_{name}", "")  # which is as if it were not set
    client = cls.from_env()
    assert type(client) is cls
    assert (session(client).provider.name, session(client).options.timeout) == ("sqlite", 30.0)


@pytest.mark.promise(8, 29)
@both
def test_each_variable_becomes_the_option_of_its_name(cls: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENPROTO_PROVIDER", "acme")
    options = {"url": "a url", "base_url": "a base", "api_key": "k", "path": "p", "embedder": "e", "schema": "s"}
    bounds = {"timeout": 1.5, "retries": 7, "close_timeout": 2.0, "max_concurrency": 3, "app": "x"}
    for name, value in {**options, **bounds}.items():
        monkeypatch.setenv(f"OPENPROTO_{name.upper()}", str(value))
    client = session(cls.from_env())
    assert client.provider.given == options
    assert {name: getattr(client.options, name) for name in bounds} == bounds


@both
def test_an_argument_takes_precedence_over_the_environment(cls: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENPROTO_PROVIDER", "no such provider")
    monkeypatch.setenv("OPENPROTO_URL", "theirs")
    monkeypatch.setenv("OPENPROTO_TIMEOUT", "1")
    client = cls.from_env(provider="acme", url="mine", timeout=2)
    assert (session(client).provider.given, session(client).options.timeout) == ({"url": "mine"}, 2)


def test_of_what_a_provider_does_not_take_a_variable_is_passed_over_and_an_argument_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENPROTO_PROVIDER", "plain")
    monkeypatch.setenv("OPENPROTO_URL", "postgres://somewhere")
    assert isinstance(session(AsyncMemory.from_env()).provider, Plain)
    with pytest.raises(TypeError, match="'url'"):
        AsyncMemory.from_env(url="mine")


def test_a_provider_object_takes_the_clients_options_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENPROTO_TIMEOUT", "4")
    monkeypatch.setenv("OPENPROTO_URL", "elsewhere")
    provider = FakeProvider()
    client = AsyncMemory.from_env(provider=provider)
    assert (session(client).provider, session(client).options.timeout) == (provider, 4)


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
