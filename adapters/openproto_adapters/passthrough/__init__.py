"""Any server that speaks the Open Memory Protocol, openproto's own among them, over HTTP."""

from openproto_adapters.passthrough.provider import Passthrough

__all__ = ["Passthrough"]
