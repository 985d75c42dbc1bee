"""Letta: one archive for each user, one passage for each memory."""

from openproto_adapters.letta.provider import Letta

__all__ = ["Letta"]
