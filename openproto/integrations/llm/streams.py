"""Streams that are heard while the caller reads them: read, left early, broken, or forgotten, each is captured once.

A stream of the SDK, raw or a helper's, is wrapped and stays in every other way what it is.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from types import TracebackType
from typing import Any, Self

from openproto.integrations.llm.exchange import Exchange
from openproto.integrations.llm.transparent import Transparent


class Heard(Transparent, ABC):
    """What both kinds of stream share: the exchange, and the words for reading a helper's stream in one go."""

    _exchange: Exchange

    def __init__(self, wrapped: Any, exchange: Exchange) -> None:
        super().__init__(wrapped)
        object.__setattr__(self, "_exchange", exchange)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._wrapped, name)
        if name == "text_stream":
            return self._texts()
        if name == "until_done" or name.startswith("get_final_"):
            # The SDK's own would read its stream past us; once we have read it, they find it read.
            return self._having_read(value)
        return value

    def __del__(self) -> None:
        self._exchange.finish_now()

    @abstractmethod
    def _texts(self) -> Any: ...

    @abstractmethod
    def _having_read(self, then: Callable[..., Any]) -> Callable[..., Any]: ...


def _text_of(event: Any) -> str | None:
    """Return the text of an event of Anthropic's helper, whose `text_stream` yields nothing else."""
    is_text = event.type == "content_block_delta" and event.delta.type == "text_delta"
    return event.delta.text if is_text else None


class HeardStream(Heard):
    """A stream for code in a thread."""

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        try:
            event = next(self._wrapped)
        except StopIteration:
            self._exchange.reply.complete = True
            self._exchange.finish()
            raise
        except BaseException:
            self._exchange.finish_now()
            raise
        self._exchange.hear(event)
        return event

    def close(self) -> None:
        """Close the SDK's stream and capture what was heard."""
        self._wrapped.close()
        self._exchange.finish()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._exchange.finish_now()
        self.close()

    def _texts(self) -> Iterator[str]:
        return (text for text in map(_text_of, self) if text is not None)

    def _having_read(self, then: Callable[..., Any]) -> Callable[..., Any]:
        def read(*args: Any, **kwargs: Any) -> Any:
            for _ in self:
                pass
            result = then(*args, **kwargs)
            return self if result is self._wrapped else result

        return read


class HeardAsyncStream(Heard):
    """A stream for code on an event loop."""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        try:
            event = await anext(self._wrapped)
        except StopAsyncIteration:
            self._exchange.reply.complete = True
            await self._exchange.afinish()
            raise
        except BaseException:
            self._exchange.finish_now()
            raise
        self._exchange.hear(event)
        return event

    async def close(self) -> None:
        """Close the SDK's stream and capture what was heard."""
        await self._wrapped.close()
        await self._exchange.afinish()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._exchange.finish_now()
        await self.close()

    async def _texts(self) -> AsyncIterator[str]:
        async for event in self:
            if (text := _text_of(event)) is not None:
                yield text

    def _having_read(self, then: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
        async def read(*args: Any, **kwargs: Any) -> Any:
            async for _ in self:
                pass
            result = await then(*args, **kwargs)
            return self if result is self._wrapped else result

        return read


class StreamManager:
    """What a helper's `stream()` returns: recalls when it is entered, the one point where waiting is possible."""

    def __init__(self, stream: Callable[..., Any], exchange: Exchange) -> None:
        self._stream = stream
        self._exchange = exchange

    def __enter__(self) -> HeardStream:
        self._manager = self._stream(**self._exchange.recalled())
        return HeardStream(self._manager.__enter__(), self._exchange)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._exchange.finish_now()
        self._manager.__exit__(kind, error, trace)
        self._exchange.finish()


class AsyncStreamManager:
    """The same for code on an event loop."""

    def __init__(self, stream: Callable[..., Any], exchange: Exchange) -> None:
        self._stream = stream
        self._exchange = exchange

    async def __aenter__(self) -> HeardAsyncStream:
        self._manager = self._stream(**await self._exchange.arecalled())
        return HeardAsyncStream(await self._manager.__aenter__(), self._exchange)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._exchange.finish_now()
        await self._manager.__aexit__(kind, error, trace)
        await self._exchange.afinish()


class RawStream(Transparent):
    """A raw response whose body is a stream: the stream that `parse()` makes of it is heard."""

    _heard: Callable[[Any], Heard]

    def __init__(self, wrapped: Any, heard: Callable[[Any], Heard]) -> None:
        super().__init__(wrapped)
        object.__setattr__(self, "_heard", heard)

    def parse(self, **kwargs: Any) -> Any:
        """Return the stream, or a coroutine of it where the SDK's `parse` is one."""
        parsed = self._wrapped.parse(**kwargs)
        return self._later(parsed) if inspect.isawaitable(parsed) else self._heard(parsed)

    async def _later(self, parsed: Awaitable[Any]) -> Heard:
        return self._heard(await parsed)
