"""Keeping passwords and keys out of everything that is printed, including the messages of others."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from urllib.parse import unquote

_FROM_ENVIRONMENT = ("OPENPROTO_API_KEY", "OPENAI_API_KEY", "PGPASSWORD")
_SECRET_NAME = re.compile(r"key|token|password|secret|credential", re.IGNORECASE)
_IN_URL = re.compile(r"://[^:/?#\s]*:(\S*)@|\bpassword=([^&\s]+)", re.IGNORECASE)
_SHORTEST = 3  # anything shorter stands in ordinary words too, and hiding it there would show what it is
_CERTAIN = 6
_MASK = "***"


class Redactor:
    """Replaces the secrets of one call, as they were written and as they are decoded."""

    def __init__(self, options: Iterable[tuple[str, str]] = ()) -> None:
        self._secrets: set[str] = set()
        self._learn(os.environ.get(name, "") for name in _FROM_ENVIRONMENT)
        for name in ("OPENPROTO_URL", "OPENPROTO_AUDIT"):
            self._learn(_passwords(os.environ.get(name, "")))
        for name, value in options:
            self._learn([value] if _SECRET_NAME.search(name) else _passwords(value))

    def __call__(self, text: str) -> str:
        """Return `text` with every secret replaced."""
        for secret in sorted(self._secrets, key=len, reverse=True):
            text = text.replace(secret, _MASK)
        return text

    @property
    def secrets(self) -> tuple[str, ...]:
        """What is replaced, and long enough to stand for nothing else."""
        return tuple(sorted(secret for secret in self._secrets if len(secret) >= _CERTAIN))

    def _learn(self, secrets: Iterable[str]) -> None:
        for secret in secrets:
            self._secrets |= {spelling for spelling in (secret, unquote(secret)) if len(spelling) >= _SHORTEST}


def _passwords(url: str) -> list[str]:
    return [match[1] or match[2] or "" for match in _IN_URL.finditer(url)]
