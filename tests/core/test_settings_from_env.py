"""`from_env()`: one environment for every provider."""

from __future__ import annotations

import os
from typing import Any

import pytest
from fake_provider import FakeProvider

from openproto import AsyncMemory, Memory, Provider, UnknownProviderError, registry
from openproto.client import settings

OPTIONS = {"url": "a url", "base_url": "a base", "api_key": "k", "path": "p", "embedder": "e", "schema": "s"}
BOUNDS = {"timeout": 1.5, "retries": 7, "close_timeout": 2.0, "max_concurrency": 3, "app": "x"}


class Acme(Provider):
    """Takes every option that a variable of the environment can set."""

    def __init__(
        self,
        *,
        url: str = "",
        base_url: str = "",
        api_key: str = "",
        path: str = "",
        embedder: str = "",
        schema: str = "",
    ) -> None:
        self.given = {name: value for name, value in locals().items() if name in OPTIONS and value}


class Plain(Provider):
    """Takes no option at all."""


@pytest.fixture(autouse=True)
def only_these(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("OPENPROTO_")]:
        monkeypatch.delenv(name)
    known = {"acme": Acme, "plain": Plain}
    original = registry.provider_class
    for module in (registry, settings):
        monkeypatch.setattr(module, "provider_class", lambda name: known.get(name) or original(name))


def session(client: Any) -> Any:
    return client._memory._session if isinstance(client, Memory) else client._session


@pytest.mark.promise(8, 29)
@pytest.mark.parametrize("cls", [AsyncMemory, Memory])
def test_variables_become_options_of_their_names_and_arguments_precede(
    cls: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PROVIDER", "TIMEOUT"):
        monkeypatch.setenv(f"OPENPROTO_{name}", "")  # which is as if it were not set
    client = cls.from_env()
    assert (type(client), session(client).provider.name, session(client).options.timeout) == (cls, "sqlite", 30.0)
    for name, value in {"provider": "acme", **OPTIONS, **BOUNDS}.items():
        monkeypatch.setenv(f"OPENPROTO_{name.upper()}", str(value))
    made = session(cls.from_env())
    assert made.provider.given == OPTIONS
    assert {name: getattr(made.options, name) for name in BOUNDS} == BOUNDS
    monkeypatch.setenv("OPENPROTO_PROVIDER", "no such provider")
    made = session(cls.from_env(provider="acme", url="mine", timeout=2))
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
