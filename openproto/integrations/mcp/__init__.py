"""Memory for clients of the Model Context Protocol, such as coding agents: `openproto mcp`, or a server in a program.

from openproto import AsyncMemory
from openproto.integrations.mcp import create_server

create_server(AsyncMemory(), user_id="ada").run("stdio")
"""

from openproto.integrations.mcp.keys import KeyVerifier
from openproto.integrations.mcp.server import create_server

__all__ = ["KeyVerifier", "create_server"]
