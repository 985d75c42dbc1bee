"""The embedded default and the reference: one file, exact vectors, FTS5; read `provider.py` as the specification."""

from openproto_adapters.sqlite.provider import Sqlite

__all__ = ["Sqlite"]
