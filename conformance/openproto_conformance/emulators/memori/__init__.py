"""Memori's own engine in this process, with an embedding model that needs no download."""

from openproto_conformance.emulators.memori.emulator import Memori

__all__ = ["Memori"]
