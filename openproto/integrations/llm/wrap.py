"""`wrap`: memory around an LLM client of OpenAI's or Anthropic's SDK, recognized without importing either."""

from __future__ import annotations

from typing import Any, TypeVar, cast

from openproto import AsyncMemory, Memory
from openproto.fields import check_seconds, check_whole
from openproto.integrations.llm.anthropic import Messages
from openproto.integrations.llm.capture import CaptureQueue
from openproto.integrations.llm.exchange import WrapOptions
from openproto.integrations.llm.identity import Named
from openproto.integrations.llm.openai import ChatCompletions, Responses
from openproto.integrations.llm.proxy import ClientProxy, Routes, Way
from openproto.integrations.llm.recall import Recall

C = TypeVar("C")

_OPENAI: Routes = {"chat": {"completions": ChatCompletions()}, "responses": Responses()}
_ANTHROPIC: Routes = {"messages": Messages()}
_ROUTES: dict[str, Routes] = {
    # The previews under `beta` speak the same languages.
    "openai": {**_OPENAI, "beta": _OPENAI},
    "anthropic": {**_ANTHROPIC, "beta": _ANTHROPIC},
}


def wrap(
    client: C,
    memory: Memory | AsyncMemory | CaptureQueue,
    *,
    user_id: Named,
    scope: Named | None = None,
    recall: bool = True,
    capture: bool = True,
    recall_timeout: float = 0.3,
    token_budget: int = 500,
) -> C:
    """Return a proxy of `client` whose calls recall from `memory` before, and are captured into it after.

    The proxy is used like the client, which itself is left alone. Its copies (`with_options`, `copy`) are wrapped too.
    `with_streaming_response` and the batch, realtime, audio, and assistants APIs pass through without memory.

    Args:
        client: `OpenAI`, `AsyncOpenAI`, `Anthropic`, `AsyncAnthropic`, or one derived from these (Azure, Bedrock,
            Vertex). A wrapped client is wrapped anew, with these settings instead of its own.
        memory: A `Memory`, which serves every client; an `AsyncMemory`, which serves asynchronous clients on its own
            loop; or a `CaptureQueue` with its own settings over either.
        user_id: Whose memories: a text, a function, or a `ContextVar`, looked up at each call.
        scope: Where within the user's memories, for recall and capture, given like `user_id`; None for all of them.
        recall: Whether memories are put into the calls.
        capture: Whether turns are stored.
        recall_timeout: Seconds that a call may wait for its memories; then it is made without.
        token_budget: Tokens of memories in a call, at most.

    Raises:
        TypeError: The client is of no kind that is known here, or is synchronous while the memory is an `AsyncMemory`.

    A call raises InvalidRequestError (a ValueError) when there is no user id, and RuntimeError when its event loop is
    not the `AsyncMemory`'s, both before the LLM is asked. Whatever else befalls the memory is logged and counted.
    """
    check_seconds(recall_timeout=recall_timeout, or_zero=True)
    check_whole(token_budget=token_budget)
    bare: object = cast(Any, client)._wrapped if type(client) is ClientProxy else client
    routes, is_async = _kind(bare)
    queue = memory if isinstance(memory, CaptureQueue) else CaptureQueue.of(memory)
    if not (is_async or queue.home.is_shared):
        raise TypeError("a synchronous client needs a Memory: an AsyncMemory works only on its own event loop")
    recaller = Recall(queue, timeout=recall_timeout, token_budget=token_budget) if recall else None
    options = WrapOptions(queue, user_id, scope, recaller, capture)
    return cast(C, ClientProxy(bare, routes, Way(options, is_async)))


def _kind(client: object) -> tuple[Routes, bool]:
    """Return where the calls of the client are, and whether they are coroutines."""
    bases = {f"{base.__module__.partition('.')[0]}.{base.__name__}" for base in type(client).__mro__}
    for sdk, routes in _ROUTES.items():
        for base, is_async in ((f"{sdk}.SyncAPIClient", False), (f"{sdk}.AsyncAPIClient", True)):
            if base in bases:
                return routes, is_async
    raise TypeError(
        f"cannot wrap {type(client).__name__!r}: pass an OpenAI, AsyncOpenAI, Anthropic, or AsyncAnthropic client, "
        "or one derived from these (Azure, Bedrock, Vertex)"
    )
