"""MemorySync: memories on the header plane, and the v1 plane's turns, recall, and listing."""

from openproto_conformance.emulators.memorysync.emulator import MemorySync

__all__ = ["MemorySync"]
