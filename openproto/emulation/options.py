"""The options that most adapters have."""

from __future__ import annotations

import os
from urllib.parse import urlsplit

from openproto.errors import UnauthorizedError


def check_base_url(url: str | None) -> None:
    """Raise ValueError for a URL with a user or a password, which would show in logs, and take the key's place."""
    if url is not None and "@" in urlsplit(url).netloc:
        raise ValueError("base_url must not hold a user or a password: the key is api_key=")


def without_credentials(url: str) -> str:
    """Return the URL without the user and the password that it may hold, for showing it."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def api_key_of(vendor: str, given: str | None, variable: str) -> str:
    """Return the key that was given, or that of the environment variable; UnauthorizedError where there is none."""
    key = given or os.environ.get(variable)
    if not key:
        raise UnauthorizedError(f"{vendor} needs an API key: set api_key= or {variable}")
    return key
