"""Memori on a database of the user's own: its tables and its search engine in this process, without its cloud."""

from openproto_adapters.memori.provider import Memori

__all__ = ["Memori"]
