"""Watching what reaches a provider: which of its coroutines its client ran, in order."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

from openproto import Provider
from openproto.models import VERBS

WATCHED = ("open", "close", *VERBS, "add_many", "delete_all", "health")


def spy_on(provider: Provider) -> list[str]:
    """Make `provider` note each call of its verbs, and return the list that it notes them in."""
    calls: list[str] = []
    inside: ContextVar[bool] = ContextVar("inside", default=False)

    def noted(name: str, method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def call(*args: Any, **kwargs: Any) -> Any:
            if inside.get():  # the provider's own doing: an open() that asks for the health, for one
                return await method(*args, **kwargs)
            calls.append(name)
            token = inside.set(True)
            try:
                return await method(*args, **kwargs)
            finally:
                inside.reset(token)

        return call

    for name in WATCHED:
        setattr(provider, name, noted(name, getattr(provider, name)))
    return calls
