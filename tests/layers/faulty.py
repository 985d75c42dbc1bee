"""A provider with a switch in front: what the test does before each call goes through."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from openproto import Provider
from openproto.layers.layer import Layer

Act = Callable[[str, Any], Awaitable[None]]


async def nothing(verb: str, request: Any) -> None:
    """Let the call through."""


class Faulty(Layer):
    """`inner`, of which each call first awaits `act` with its name and what it is asked; `after` follows a write."""

    def __init__(self, inner: Provider, /, act: Act = nothing) -> None:
        super().__init__(inner)
        self.act = act
        self.after = nothing
        self.calls: Counter[str] = Counter()

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name not in _CALLS:
            return found

        async def call(*args: Any, **options: Any) -> Any:
            self.calls[name] += 1
            await self.act(name, args[0] if args else None)
            answer = await found(*args, **options)
            await self.after(name, answer)
            return answer

        return call


_CALLS = {
    *("open", "add", "add_many", "get", "get_by_key", "update", "put", "delete", "delete_all", "list", "search"),
    *("context", "restore", "scopes", "users", "audit"),
}
