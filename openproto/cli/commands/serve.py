"""`serve`: any backend as an OMP server."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from openproto import ProviderUnavailableError
from openproto.cli.call import Call, open_client
from openproto.cli.command import BACKEND, CARE, command
from openproto.cli.reporting import Misuse

if TYPE_CHECKING:
    from openproto.cli.call import Target
    from openproto.server import ServerSettings

_NEEDS = ("fastapi", "limits", "uvicorn")


@command(CARE, takes=BACKEND)
def serve(
    call: Call,
    host: Annotated[str | None, typer.Option(metavar="ADDRESS", help="Where to listen; 127.0.0.1 by default.")] = None,
    port: Annotated[int | None, typer.Option(metavar="N", help="8080 by default; 0 takes a free one.")] = None,
    workers: Annotated[int | None, typer.Option(metavar="N", help="Processes that share the port; 1.")] = None,
    keys: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The file of API keys, which is followed; see `openproto keys`."),
    ] = None,
    allow_unauthenticated: Annotated[
        bool | None,
        typer.Option("--allow-unauthenticated", help="Listen without keys on an address that others can reach."),
    ] = None,
    rate_limit: Annotated[
        str | None, typer.Option(metavar="LIMIT", help='For each key, such as "600/minute"; none by default.')
    ] = None,
    cors_origin: Annotated[
        list[str] | None, typer.Option(metavar="ORIGIN", help="An origin whose pages may call; repeatable.")
    ] = None,
    allowed_host: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A name by which the server is called; repeatable.")
    ] = None,
    max_connections: Annotated[
        int | None, typer.Option(metavar="N", help="Open at once, for each worker; 512 by default.")
    ] = None,
    max_connections_per_address: Annotated[
        int | None, typer.Option(metavar="N", help="Of those, for one address; 256 by default.")
    ] = None,
    max_head_bytes: Annotated[
        int | None, typer.Option(metavar="N", help="Of path, headers, and trailers together; 65536 by default.")
    ] = None,
    head_timeout: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="For path and headers to arrive; 10 by default.")
    ] = None,
    body_timeout: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="For a body to arrive; 60 by default.")
    ] = None,
    idle_timeout: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="To keep a connection between requests; 75 by default.")
    ] = None,
    shutdown_timeout: Annotated[
        int | None, typer.Option(metavar="SECONDS", help="How long requests may take to finish at a stop; 10.")
    ] = None,
    metrics: Annotated[
        str | None, typer.Option(metavar="[ADDRESS:]PORT", help="Where Prometheus finds figures, without a key.")
    ] = None,
    ui: Annotated[
        bool | None, typer.Option("--ui", help="Show the inspector of memories at /ui, to people with a key.")
    ] = None,
    log_level: Annotated[
        str | None, typer.Option(metavar="LEVEL", help="debug, info, warning, or error; info by default.")
    ] = None,
    log_format: Annotated[str | None, typer.Option(metavar="FORMAT", help="text or json; text by default.")] = None,
    log_clients: Annotated[
        bool | None, typer.Option("--log-clients", help="Log the address that each request came from.")
    ] = None,
) -> None:
    """Serve the backend over HTTP, as the Open Memory Protocol; Ctrl-C or SIGTERM ends it in order.

    What no flag says comes from OPENPROTO_SERVER_HOST, OPENPROTO_SERVER_PORT, and so on.
    """
    flags = {
        "host": host,
        "port": port,
        "workers": workers,
        "keys_file": keys,
        "allow_unauthenticated": allow_unauthenticated,
        "rate_limit": rate_limit,
        "cors_origins": cors_origin or None,
        "allowed_hosts": allowed_host or None,
        "max_connections": max_connections,
        "max_connections_per_address": max_connections_per_address,
        "max_head_bytes": max_head_bytes,
        "head_timeout": head_timeout,
        "body_timeout": body_timeout,
        "idle_timeout": idle_timeout,
        "shutdown_timeout": shutdown_timeout,
        "metrics": metrics,
        "ui": ui,
        "log_level": log_level,
        "log_format": log_format,
        "log_clients": log_clients,
    }
    settings = server_settings({name: value for name, value in flags.items() if value is not None})
    # The callers' own names stand in the audit log; the server's only where the environment gives it one.
    target = call.target(app=os.environ.get("OPENPROTO_APP") or None)
    asyncio.run(try_backend(target))
    from openproto.server.run import serve as run

    options = target.provider_options | target.client_options
    if settings.metrics is None:
        run(target.name, options, settings)
        return
    from openproto.integrations.prometheus import count_calls
    from openproto.integrations.prometheus_endpoint import showing_metrics

    with showing_metrics(settings.metrics, workers=settings.workers) as url:
        run(target.name, options, settings, observers=[count_calls], also=f", metrics on {url}")


def server_settings(flags: dict[str, Any]) -> ServerSettings:
    """Return the settings that the flags and the environment give; a Misuse names what is wrong with them."""
    require_server()
    from pydantic import ValidationError
    from pydantic_settings import SettingsError

    from openproto.server import ServerSettings

    try:
        return ServerSettings(**flags)
    except SettingsError as error:
        raise Misuse(f"the environment holds an invalid setting: {error}") from None
    except ValidationError as error:
        faults = error.errors(include_url=False, include_input=False, include_context=False)
        where = [".".join(map(str, fault["loc"])) for fault in faults]
        what = [fault["msg"].removeprefix("Value error, ") for fault in faults]
        text = "; ".join(f"{place}: {said}" if place else said for place, said in zip(where, what, strict=True))
        raise Misuse(
            text, "`openproto serve --help` shows the flags; OPENPROTO_SERVER_* are the same settings"
        ) from None


def require_server() -> None:
    """Raise the ImportError with the pip line where the server's packages are not installed."""
    from importlib.util import find_spec

    for module in _NEEDS:
        if find_spec(module) is None:
            raise ImportError(f"the server needs {module!r}: pip install 'openproto[server]'", name=module)


async def try_backend(target: Target) -> None:
    """Open the backend once: what is wrong with it is better said now than by each worker."""
    async with open_client(target.make_provider(), target.client_options) as memory:
        health = await memory.health()
    if health.status != "ok":
        raise ProviderUnavailableError(health.detail or "the backend does not answer", provider=health.provider)
