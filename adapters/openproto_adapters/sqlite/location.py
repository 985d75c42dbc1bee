"""Where the file is: what people write for `path=` and OPENPROTO_PATH, and what they mean by it."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://|(file):")


def file_at(path: str | Path) -> Path:
    """Return the file that `path` names: a path, `~` for the user's folder, or a `sqlite:///` URL.

    Raise ValueError for what names no file; it never repeats a URL, which may hold a password.
    """
    text = str(path)
    if text in ("", ".", ":memory:", "sqlite:///:memory:", "sqlite://"):
        raise ValueError("path must name a file, which several connections share; use a temporary one for tests")
    if match := _SCHEME.match(text):
        scheme = match[1] or match[2]
        if scheme != "sqlite":
            raise ValueError(
                f"path names a file, and this is a {scheme}: URL: give the file's path, or 'sqlite:///memory.db' "
                "(an absolute path has a fourth slash)"
            )
        parts = urlsplit(text)
        text = unquote(parts.path)[1:]
        if parts.netloc or parts.query or parts.fragment or not text:
            raise ValueError(
                "path: a sqlite: URL must be 'sqlite:///memory.db' for a relative path and 'sqlite:////var/memory.db' "
                "for an absolute one, with nothing behind it"
            )
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise ValueError("path begins with '~' and a name that is not a user's on this machine") from None
