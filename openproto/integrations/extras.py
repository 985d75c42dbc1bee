"""What an integration needs beyond openproto, and how to get it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def needs(extra: str) -> Iterator[None]:
    """Say which extra brings a package that is not installed, where importing fails for its want.

    Raises ImportError with the `pip install` line.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "openproto":
            raise
        text = f"this integration needs {error.name.partition('.')[0]!r}: pip install 'openproto[{extra}]'"
        raise ImportError(text, name=error.name) from error
