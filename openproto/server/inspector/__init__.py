"""The pages that a server can show: the inspector of memories, and the documentation of its routes."""

from openproto.server.inspector.routes import DOCS, INSPECTOR

__all__ = ["DOCS", "INSPECTOR"]
