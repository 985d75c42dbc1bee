"""Supermemory 5: namespaces, documents, and the memories that form out of them."""

from openproto_conformance.emulators.supermemory.emulator import Supermemory

__all__ = ["Supermemory"]
