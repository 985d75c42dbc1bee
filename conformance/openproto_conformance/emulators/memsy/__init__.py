"""Memsy: events go in, and memories form out of them."""

from openproto_conformance.emulators.memsy.emulator import Memsy

__all__ = ["Memsy"]
