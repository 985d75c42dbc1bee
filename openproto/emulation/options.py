"""A check of an option that most adapters have."""

from __future__ import annotations

from urllib.parse import urlsplit


def check_base_url(url: str | None) -> None:
    """Raise ValueError for a URL with a user or a password, which would show in logs, and take the key's place."""
    if url is not None and "@" in urlsplit(url).netloc:
        raise ValueError("base_url must not hold a user or a password: the key is api_key=")


def without_credentials(url: str) -> str:
    """Return the URL without the user and the password that it may hold, for showing it."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
