"""The mem0 platform, third version: memories, search, events, and batches."""

from openproto_conformance.emulators.mem0.emulator import Mem0Platform

__all__ = ["Mem0Platform"]
