"""An OMP server over any provider: `create_app(memory)` is the ASGI app, `openproto serve` runs it.

`running(app)` serves an app from a thread on a free loopback port, for tests and notebooks.
"""

from openproto.server.app import create_app
from openproto.server.running import running
from openproto.server.settings import ServerSettings

__all__ = ["ServerSettings", "create_app", "running"]
