"""One LLM call with memory around it: recalled before, captured after, the same for every kind of call."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from openproto.integrations.llm.capture import CaptureQueue
from openproto.integrations.llm.dialect import Dialect, Reply, Said
from openproto.integrations.llm.identity import Named, Owner, current_owner
from openproto.integrations.llm.loop_turns import LoopTurns
from openproto.integrations.llm.recall import Recall
from openproto.integrations.llm.sifting import clean
from openproto.integrations.llm.turns import Turn


@dataclass(frozen=True)
class WrapOptions:
    """The arguments of `wrap`: which queue, whose memories, and which of the two halves to do."""

    queue: CaptureQueue
    user_id: Named
    scope: Named | None
    recall: Recall | None
    capture: bool
    turns: LoopTurns = field(default_factory=LoopTurns)

    def begin(self, dialect: Dialect, arguments: Mapping[str, Any]) -> Exchange:
        """Start a call; raises ValueError when there is no user id now."""
        owner = current_owner(self.user_id, self.scope)
        arguments = dialect.readable(arguments)
        said = dialect.said(arguments)
        said = said._replace(text=clean(said.text) if said.text else None)
        wanted = arguments.get("n")
        reply = Reply(choices=wanted if isinstance(wanted, int) else 1)
        return Exchange(self, dialect, owner, arguments, said, reply)


@dataclass
class Exchange:
    """A call in progress: its arguments, and the reply as far as it has come."""

    options: WrapOptions
    dialect: Dialect
    owner: Owner
    arguments: dict[str, Any]
    said: Said
    reply: Reply
    recalled_block: str | None = None
    captured: bool = False

    def recalled(self) -> dict[str, Any]:
        """Return the arguments to call with, the user's memories among them."""
        recall, text = self.options.recall, None if self.said.is_blank else self.said.text
        return self._with(recall.block(self.owner, text) if recall and text else None)

    async def arecalled(self) -> dict[str, Any]:
        """Return the arguments to call with; raises RuntimeError on a loop that the memory does not serve."""
        self.options.queue.home.check()
        recall, text = self.options.recall, None if self.said.is_blank else self.said.text
        await self.options.turns.next()
        if not (recall and text):
            return self._with(None)
        block = await recall.ablock(self.owner, text)
        await self.options.turns.next()
        return self._with(block)

    def take(self, response: Any, *, raw: bool) -> None:
        """Note a whole response, parsing it first where it is `raw`; the SDK keeps what it parsed for the caller."""
        with self._unharmed():
            self._read(response.parse() if raw else response)

    async def atake(self, response: Any, *, raw: bool) -> None:
        """Note a whole response; some SDKs parse raw ones in a coroutine."""
        with self._unharmed():
            parsed = response.parse() if raw else response
            self._read(await parsed if inspect.isawaitable(parsed) else parsed)

    def hear(self, event: Any) -> None:
        """Note one event of a stream."""
        with self._unharmed():
            self.dialect.feed(event, self.reply)

    def finish(self) -> None:
        """Capture the turn, once; may wait for room in the queue."""
        if turn := self._turn():
            self.options.queue.put(turn)

    async def afinish(self) -> None:
        """Capture the turn, once; may wait for room in the queue."""
        if turn := self._turn():
            await self.options.queue.aput(turn)

    def finish_now(self) -> None:
        """Capture the turn, once, where nothing may wait: in a finalizer, or while an exception is on its way."""
        if turn := self._turn():
            self.options.queue.put_nowait(turn)

    def _place(self, reply: str) -> dict[str, Any]:
        """Return which conversation the turn belongs to, by how it began, and at which position."""
        spoken = self.dialect.spoken_before(self.arguments)
        began_with = next((text for role, text in spoken if role == "user"), self.said.text or "")
        answered = next((text for role, text in spoken if role == "assistant"), reply.strip())
        beginning = f"{len(began_with)}:{began_with}{answered}".encode("utf-8", "surrogatepass")
        name = blake2b(beginning, digest_size=12).hexdigest()
        asked_at = max((n for n, (role, _) in enumerate(spoken) if role == "user"), default=0)
        return {"conversation": name, "position": asked_at}

    def _with(self, block: str | None) -> dict[str, Any]:
        self.recalled_block = block
        return self.dialect.with_memories(self.arguments, block) if block else self.arguments

    def _read(self, response: Any) -> None:
        self.dialect.read(response, self.reply)
        self.reply.complete = True

    @contextlib.contextmanager
    def _unharmed(self) -> Iterator[None]:
        """Keep the call from failing over a response that we cannot read: the caller may well be able to."""
        try:
            yield
        except Exception as error:
            self.options.queue.report("a response could not be read", error)

    def _turn(self) -> Turn | None:
        if self.captured or not self.options.capture:
            return None
        self.captured = True
        user = self.said.text if self.said.is_new and not self.said.is_blank else None
        reply = clean(self.reply.text) or None
        if not (user or reply):
            return None
        return Turn(
            user_id=self.owner.user_id,
            scope=self.owner.scope,
            user=user,
            reply=reply,
            response_id=self.reply.id,
            partial=not self.reply.complete,
            recalled=self.recalled_block,
            **self._place(reply or ""),
        )
