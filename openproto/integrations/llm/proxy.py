"""The proxy of a client: a tree of routes says which calls memory goes around; all else passes through."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeAlias, Union

from openproto.integrations.llm.dialect import Dialect
from openproto.integrations.llm.exchange import Exchange, WrapOptions
from openproto.integrations.llm.streams import (
    AsyncStreamManager,
    HeardAsyncStream,
    HeardStream,
    RawStream,
    StreamManager,
)
from openproto.integrations.llm.transparent import Transparent

Routes: TypeAlias = Mapping[str, Union["Routes", Dialect]]

_CALLS = ("create", "parse")
_COPIES = ("copy", "with_options", "with_middleware")


class Way(NamedTuple):
    """How the calls below a resource are made: by which memory, on a loop or not, and as raw responses or not."""

    options: WrapOptions
    is_async: bool
    raw: bool = False


class ResourceProxy(Transparent):
    """A resource of a client, such as `client.chat`, or the client itself."""

    _routes: Routes | Dialect
    _way: Way

    def __init__(self, wrapped: Any, routes: Routes | Dialect, way: Way) -> None:
        super().__init__(wrapped)
        object.__setattr__(self, "_routes", routes)
        object.__setattr__(self, "_way", way)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._wrapped, name)
        routes, way = self._routes, self._way
        if name == "with_raw_response":
            return ResourceProxy(value, routes, way._replace(raw=True))
        if isinstance(routes, Dialect):
            if name in _CALLS:
                return (_async_call if way.is_async else _call)(value, routes, way)
            return _stream(value, routes, way) if name == "stream" else value
        return ResourceProxy(value, routes[name], way) if name in routes else value


class ClientProxy(ResourceProxy):
    """A client; its copies have the same memory."""

    def __getattr__(self, name: str) -> Any:
        value = super().__getattr__(name)
        if name not in _COPIES:
            return value

        @functools.wraps(value)
        def copied(*args: Any, **kwargs: Any) -> ClientProxy:
            return ClientProxy(value(*args, **kwargs), self._routes, self._way)

        return copied

    def __enter__(self) -> Self:
        self._wrapped.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._wrapped.__exit__(kind, error, trace)

    async def __aenter__(self) -> Self:
        await self._wrapped.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._wrapped.__aexit__(kind, error, trace)


def _call(method: Callable[..., Any], dialect: Dialect, way: Way) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        exchange = way.options.begin(dialect, kwargs)
        response = method(*args, **exchange.recalled())
        if kwargs.get("stream"):
            return _heard(response, exchange, way)
        exchange.take(response, raw=way.raw)
        exchange.finish()
        return response

    return call


def _async_call(method: Callable[..., Any], dialect: Dialect, way: Way) -> Callable[..., Any]:
    @functools.wraps(method)
    async def call(*args: Any, **kwargs: Any) -> Any:
        exchange = way.options.begin(dialect, kwargs)
        response = await method(*args, **await exchange.arecalled())
        if kwargs.get("stream"):
            return _heard(response, exchange, way)
        await exchange.atake(response, raw=way.raw)
        await exchange.afinish()
        return response

    return call


def _heard(response: Any, exchange: Exchange, way: Way) -> Transparent:
    def heard(stream: Any) -> HeardStream | HeardAsyncStream:
        return (HeardAsyncStream if way.is_async else HeardStream)(stream, exchange)

    return RawStream(response, heard) if way.raw else heard(response)


def _stream(method: Callable[..., Any], dialect: Dialect, way: Way) -> Callable[..., Any]:
    manager = AsyncStreamManager if way.is_async else StreamManager

    @functools.wraps(method)
    def stream(**kwargs: Any) -> StreamManager | AsyncStreamManager:
        return manager(method, way.options.begin(dialect, kwargs))

    return stream
