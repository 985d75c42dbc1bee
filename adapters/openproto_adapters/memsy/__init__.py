"""Memsy: an event for each memory, and the records in a file, since Memsy neither deletes nor changes anything."""

from openproto_adapters.memsy.provider import Memsy

__all__ = ["Memsy"]
