"""What can be seen and done from outside, where a suite lacks a hook: by the options that a provider was made with.

A store in an SQLite file can be held up by its lock; a provider with a URL or a path among its options can be made once
more with one that leads nowhere; and its passwords and keys stand there by name.
"""

from __future__ import annotations

import contextlib
import inspect
import re
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import SecretStr

from openproto import Provider
from openproto.layers.layer import Layer

CREDENTIALS = re.compile(r"://[^\s:/?#@]*:(?!\*+@)[^\s/@]+@")
"""A URL with a password in it: no message, log line, or repr may hold one, whoever's it is."""

_SECRET_NAME = re.compile(r"key|token|password|secret|credential", re.IGNORECASE)
_SHORTEST = 6  # anything shorter stands in ordinary words too
_SQLITE_URL = re.compile(r"sqlite:(?:///)?")
_NOBODY = "127.0.0.1:1"
_NOWHERE = "/dev/null/nowhere"


def options_of(provider: Provider) -> dict[str, Any]:
    """Return the options that a provider, or the one inside its layers, was made with, by name."""
    provider = _innermost(provider)
    args, options = provider._made_of
    try:
        return dict(inspect.signature(type(provider)).bind(*args, **options).arguments)
    except TypeError:  # a constructor with a signature of its own
        return dict(options)


def secrets_of(provider: Provider) -> set[str]:
    """Return the passwords and keys among a provider's options."""
    found: set[str] = set()
    for name, value in options_of(provider).items():
        text = value.get_secret_value() if isinstance(value, SecretStr) else value
        if not isinstance(text, str):
            continue
        if _SECRET_NAME.search(name):
            found.add(text)
        elif "://" in text:
            with contextlib.suppress(ValueError):
                found.add(urlsplit(text).password or "")
    return {secret for secret in found if len(secret) >= _SHORTEST}


def stalled(provider: Provider) -> AbstractContextManager[object] | None:
    """Return a context under which no write to the provider's SQLite file ends; None where it has none."""
    files = {path for value in options_of(provider).values() if (path := _database(value)) is not None}
    return _locked(files.pop()) if len(files) == 1 else None


def unreachable(provider: Provider) -> Provider | None:
    """Return such a provider whose URL or path leads nowhere; None where it has no such option."""
    inner = _innermost(provider)
    options = options_of(inner)
    elsewhere = {name: led for name, value in options.items() if (led := _nowhere(value)) is not None}
    if not elsewhere:
        return None
    try:
        return _made_with(type(inner), {**options, **elsewhere})
    except Exception:  # a third party's constructor raises what it likes
        return None  # it looks at its options itself, and this is none of them


def _made_with(cls: type[Provider], options: Mapping[str, Any]) -> Provider:
    given = inspect.signature(cls).bind_partial()
    given.arguments.update(options)
    return cls(*given.args, **given.kwargs)


def _innermost(provider: Provider) -> Provider:
    while isinstance(provider, Layer):
        provider = provider.inner
    return provider


def _database(value: object) -> Path | None:
    """Return the SQLite file that an option names, if it does."""
    if not isinstance(value, str | Path):
        return None
    path = Path(_SQLITE_URL.sub("", str(value)))
    try:
        if not path.is_file():
            return None
        # By SQLite itself: whoever opens and closes the file next to it takes the locks of its connections away.
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
            has_tables = database.execute("PRAGMA schema_version").fetchone() != (0,)
        return path.resolve() if has_tables else None
    except (OSError, ValueError, sqlite3.Error):
        return None


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield


def _nowhere(value: object) -> object:
    """Return what an option could be that leads nowhere, or None where it leads to no place at all."""
    if isinstance(value, Path):
        return Path(_NOWHERE)
    if not isinstance(value, str):
        return None
    if "://" not in value:
        return _NOWHERE if Path(value).is_absolute() else None
    try:
        parts = urlsplit(value)
    except ValueError:
        return None
    if not parts.hostname:
        return f"{parts.scheme}:///{_NOWHERE}" if parts.scheme == "sqlite" else None
    credentials, at, _ = parts.netloc.rpartition("@")
    return parts._replace(netloc=f"{credentials}{at}{_NOBODY}").geturl()
