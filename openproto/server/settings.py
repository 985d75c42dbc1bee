"""The settings of a server, from flags or `OPENPROTO_SERVER_*`; everything is checked before anything is bound."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated, ClassVar, Literal, NamedTuple, Self

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from openproto.server.keys import ApiKey, read_keys

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")


class Address(NamedTuple):
    """Where to listen; as text, with brackets round an address of IPv6."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _address(value: object) -> object:
    if not isinstance(value, str):
        return value
    found = re.fullmatch(r"(?:(\[[0-9a-fA-F:.]+]|[^:\s]+):)?([0-9]{1,5})", value)
    if found is None or int(found[2]) > 65535:
        raise ValueError("must be a port, or an address and a port: 9464, 10.0.0.5:9464")
    return Address((found[1] or "127.0.0.1").strip("[]"), int(found[2]))


def _split(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _number(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("must be a number")
    return value


def _whole(value: object) -> object:
    if isinstance(value, float):
        raise ValueError("must be a whole number")
    return value


def _origin(text: str) -> str:
    if not re.fullmatch(r"\*|[a-z][a-z0-9+.-]*://[^/\s]+", text.lower()):
        raise ValueError("must be a scheme and a host, without a path: https://app.example.com")
    return text.lower()


def _host(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9._-]+|\[[0-9a-f:.]+]", text.lower()):
        raise ValueError("must be a name or an address, without a scheme or a port: memory.example.com")
    return text.lower()


Origins = Annotated[list[Annotated[str, AfterValidator(_origin)]], NoDecode, BeforeValidator(_split)]
Hosts = Annotated[list[Annotated[str, AfterValidator(_host)]], NoDecode, BeforeValidator(_split)]
Seconds = Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False), BeforeValidator(_number)]
Whole = Annotated[int, BeforeValidator(_number), BeforeValidator(_whole)]


class ServerSettings(BaseSettings):
    """How to serve: where, for whom, and within which bounds.

    Args:
        host: The address to bind; only a loopback one is allowed without keys.
        port: The port to bind; 0 takes a free one.
        workers: Processes that share the port, each with its own client of the backend.
        keys_file: A JSON file of API keys; the server follows its changes.
        keys: The same list inline, as JSON.
        allow_unauthenticated: Serve without keys on an address that others can reach.
        rate_limit: Requests a key (without keys: an address) may make, such as "600/minute"; each worker counts alone.
        cors_origins: Origins whose pages may call the server.
        allowed_hosts: Names that a `Host` header may hold; by default those of the loopback address when it is bound.
        max_connections: Connections open at once, for each worker; fewer where the limit of open files is lower.
        max_connections_per_address: How many of those one address may have; behind a proxy, whose address they share,
            as many as `max_connections`.
        max_head_bytes: Bytes of a request's path, headers, and trailers together.
        head_timeout: Seconds within which a path and headers arrive, from the first byte or the connection's start.
        body_timeout: Seconds within which a body arrives, from the end of the headers.
        idle_timeout: Seconds that a connection is kept between requests, or while its client reads nothing.
        shutdown_timeout: Seconds that requests get to finish when the server is stopped.
        metrics: A port, or an address and a port, where Prometheus finds the figures of all workers, without a key.
        ui: Show the inspector, a page to look at memories and change them, at `/ui`.
        log_level: The least severe level that is logged.
        log_format: Lines for people, or one JSON object a line.
        log_clients: Whether the line of a request holds the address that it came from.
    """

    model_config: ClassVar[SettingsConfigDict] = SettingsConfigDict(
        env_prefix="OPENPROTO_SERVER_", env_ignore_empty=True, frozen=True
    )

    host: str = Field(default="127.0.0.1", min_length=1)
    port: Whole = Field(default=8080, ge=0, le=65535)
    workers: Whole = Field(default=1, ge=1, le=128)
    keys_file: Path | None = None
    keys: list[ApiKey] = []
    allow_unauthenticated: bool = False
    rate_limit: str | None = None
    cors_origins: Origins = []
    allowed_hosts: Hosts = []
    max_connections: Whole = Field(default=512, ge=1, le=100_000)
    max_connections_per_address: Whole = Field(default=256, ge=1, le=100_000)
    max_head_bytes: Whole = Field(default=2**16, ge=2**10, le=2**24)
    head_timeout: Seconds = 10
    body_timeout: Seconds = 60
    idle_timeout: Seconds = 75
    shutdown_timeout: Whole = Field(default=10, ge=1, le=600)
    metrics: Annotated[Address | None, NoDecode, BeforeValidator(_address)] = None
    ui: bool = False
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["text", "json"] = "text"
    log_clients: bool = False

    @field_validator("rate_limit")
    @classmethod
    def _readable(cls, value: str | None) -> str | None:
        if value is not None:
            from limits import parse

            try:
                readable = parse(value).amount > 0
            except ValueError:
                readable = False
            if not readable:
                raise ValueError("must be a number of requests a second, minute, hour, or day: 600/minute")
        return value

    @model_validator(mode="before")
    @classmethod
    def _with_keys_of_the_file(cls, values: dict[str, object]) -> dict[str, object]:
        if path := values.get("keys_file"):
            try:
                keys = read_keys(Path(str(path)))
            except OSError as error:
                raise ValueError(f"{path}: {error.strerror}") from None
            if not keys:
                raise ValueError(f"{path} holds no keys: `openproto keys add` makes one")
            values = {**values, "keys": keys}
        return values

    @model_validator(mode="after")
    def _guarded(self) -> Self:
        if not (self.keys or self.allow_unauthenticated or is_loopback(self.host)):
            raise ValueError(
                f"without API keys anyone who reaches {self.host} could read and change every memory: give keys, bind "
                "127.0.0.1, or say allow_unauthenticated"
            )
        return self

    @property
    def hosts(self) -> frozenset[str]:
        """The names that a `Host` header may hold, in lower case; empty where any may stand there."""
        if self.allowed_hosts or not is_loopback(self.host):
            return frozenset(self.allowed_hosts)
        return frozenset({*LOOPBACK_NAMES, f"[{self.host}]" if ":" in self.host else self.host})


def is_loopback(host: str) -> bool:
    """Whether only programs of this machine reach `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
