"""Memory for clients of the Model Context Protocol, such as coding agents: `openproto mcp`, or a server in a program.

`create_server(AsyncMemory(), user_id="ada").run("stdio")` is the whole of one.
"""

from openproto.integrations.extras import needs

with needs("mcp"):
    from openproto.integrations.mcp.keys import KeyVerifier
    from openproto.integrations.mcp.server import create_server

__all__ = ["KeyVerifier", "create_server"]
