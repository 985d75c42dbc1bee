"""Letta's archives, as a self-hosted server of version 0.16.8 serves them."""

from openproto_conformance.emulators.letta.emulator import Letta

__all__ = ["Letta"]
