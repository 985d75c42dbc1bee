"""`mcp`: the backend as a server of the Model Context Protocol, for coding agents and chat programs."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from openproto import AsyncMemory
from openproto.cli.call import Call
from openproto.cli.command import CARE, command
from openproto.cli.reporting import Misuse

if TYPE_CHECKING:
    from mcp.server.mcpserver import MCPServer

_LOOPBACK = ("127.0.0.1", "::1", "localhost")


@command(CARE)
def mcp(
    call: Call,
    http: Annotated[bool, typer.Option("--http", help="Serve over streamable HTTP at /mcp, not over stdio.")] = False,
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(metavar="N", help="Which port to listen on.")] = 8090,
    keys: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Keys of `openproto serve`, each of one user, as bearer tokens of --http."),
    ] = None,
    read_only: Annotated[bool, typer.Option("--read-only", help="Offer no tool that changes anything.")] = False,
    no_delete: Annotated[bool, typer.Option("--no-delete", help="Offer no tool that deletes.")] = False,
) -> None:
    """Serve one user's memories to a client of the Model Context Protocol.

    The user is --user, or over HTTP with --keys the user of the key; the model cannot name another.
    """
    if find_spec("mcp") is None:
        raise ImportError("this command needs the SDK of MCP: pip install 'openproto[mcp]'", name="mcp")
    if keys is not None and not http:
        raise Misuse("--keys is for --http; over stdio the user is --user")
    if http and keys is None and host not in _LOOPBACK:
        raise Misuse(f"without --keys everyone who reaches {host} could read and change the memories of {call.user}")
    server = _server(call, keys, f"http://{host}:{port}", read_only=read_only, allow_delete=not no_delete)
    if http:
        server.run("streamable-http", host=host, port=port)
    else:
        server.run("stdio")


def _server(call: Call, keys: Path | None, url: str, *, read_only: bool, allow_delete: bool) -> MCPServer[None]:
    from mcp.server.auth.settings import AuthSettings
    from pydantic import AnyHttpUrl

    from openproto.integrations.mcp import KeyVerifier, create_server

    target = call.target(app="mcp")
    memory = AsyncMemory(target.make_provider(), **target.client_options)
    if keys is None:
        return create_server(memory, user_id=call.user, read_only=read_only, allow_delete=allow_delete)
    from openproto.server.keys import read_keys

    try:
        verifier = KeyVerifier(read_keys(keys), read_only=read_only)
    except ValueError as error:
        raise Misuse(str(error), "`openproto keys add NAME USER` makes a key of one user") from None
    auth = AuthSettings(issuer_url=AnyHttpUrl(url), resource_server_url=AnyHttpUrl(f"{url}/mcp"))
    return create_server(memory, token_verifier=verifier, auth=auth, read_only=read_only, allow_delete=allow_delete)
