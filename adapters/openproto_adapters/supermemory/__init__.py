"""Supermemory: one namespace for each user, one document for each memory."""

from openproto_adapters.supermemory.provider import Supermemory

__all__ = ["Supermemory"]
