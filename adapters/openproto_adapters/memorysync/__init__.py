"""MemorySync: an end user for each user, and of each memory the facts that MemorySync extracts, with the original."""

from openproto_adapters.memorysync.provider import MemorySync

__all__ = ["MemorySync"]
