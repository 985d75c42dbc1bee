"""Settings from the environment: `OPENPROTO_PROVIDER`, `OPENPROTO_URL`, and the others that `from_env()` reads."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from openproto.provider import Provider
from openproto.registry import provider_class, provider_options

CLIENT_OPTIONS = frozenset(
    {"timeout", "retries", "close_timeout", "max_concurrency", "app", "audit", "mirror", "fallback"}
)


class Settings(BaseSettings):
    """One field per variable, without its prefix `OPENPROTO_`."""

    model_config: ClassVar[SettingsConfigDict] = SettingsConfigDict(env_prefix="OPENPROTO_", env_ignore_empty=True)

    provider: str = "sqlite"
    url: SecretStr | None = None
    base_url: str | None = None
    api_key: SecretStr | None = None
    path: str | None = None
    embedder: str | None = None
    schema_name: str | None = Field(default=None, alias="OPENPROTO_SCHEMA")
    timeout: float | None = None
    retries: int | None = None
    close_timeout: float | None = None
    max_concurrency: int | None = None
    app: str | None = None
    audit: SecretStr | None = None
    mirror: SecretStr | None = None
    fallback: SecretStr | None = None


def options_from_env(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keywords for a client: the environment's, then `overrides`.

    A variable that the chosen provider has no use for is passed over, so one environment can serve several providers
    and only `OPENPROTO_PROVIDER` need change; an override is never passed over.
    """
    try:
        settings = Settings()
    except ValidationError as error:
        # pydantic's own text repeats the values, and some of them are secret.
        names = sorted({f"OPENPROTO_{fault['loc'][0]}".upper() for fault in error.errors(include_input=False)})
        raise ValueError(f"the environment holds invalid settings: {', '.join(names)}") from None
    found = {name: value for name, value in settings.model_dump(by_alias=False).items() if value is not None}
    if "schema_name" in found:
        found["schema"] = found.pop("schema_name")
    provider = overrides.get("provider", found.pop("provider"))
    takes = CLIENT_OPTIONS
    if isinstance(provider, str):
        cls = provider_class(provider)
        takes |= provider_options(cls).keys()
        if cls.audit is not Provider.audit:  # keeps its own audit log, and so does not need a journal
            takes -= {"audit"}
    found = {
        name: value.get_secret_value() if isinstance(value, SecretStr) else value
        for name, value in found.items()
        if name in takes
    }
    for name in ("mirror", "fallback"):
        if name in found:
            found[name] = _mapping(name, found[name])
    return {"provider": provider, **found, **overrides}


def _mapping(name: str, text: str) -> dict[str, Any]:
    with contextlib.suppress(ValueError):
        if isinstance(found := json.loads(text), dict):
            return found
    raise ValueError(f'OPENPROTO_{name.upper()} must be a JSON object, such as {{"provider": "mem0"}}')
