"""Watching what reaches a provider: which of its coroutines ran, in order."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from openproto import Provider
from openproto.models import VERBS

WATCHED = ("open", "close", *VERBS, "add_many", "delete_all", "health")


def spy_on(provider: Provider) -> list[str]:
    """Make `provider` note each call of its verbs, and return the list that it notes them in."""
    calls: list[str] = []

    def noted(name: str, method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def call(*args: Any, **kwargs: Any) -> Any:
            calls.append(name)
            return await method(*args, **kwargs)

        return call

    for name in WATCHED:
        setattr(provider, name, noted(name, getattr(provider, name)))
    return calls
