"""mem0, both kinds: the open-source library in this process, and the hosted platform over HTTP."""

from openproto_adapters.mem0.provider import Mem0

__all__ = ["Mem0"]
