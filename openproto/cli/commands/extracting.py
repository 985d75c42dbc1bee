"""`import --extract`: what a language model finds worth keeping in conversations, a few turns at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any

from openproto import AsyncMemory, InvalidRequestError, NotFoundError, OpenProtoError
from openproto.cli.call import Call
from openproto.cli.output import Progress, count
from openproto.cli.reporting import Misuse
from openproto.integrations.llm import FactExtractor, Turn, facts
from openproto.portable.formats import Recognised
from openproto.portable.formats.format import IMPORTED, Fields

TOGETHER = 10
"""How many turns the model is asked about at once."""


@dataclass(slots=True)
class _Part:
    """A few turns of one conversation, and what is known of the first."""

    name: str
    about: dict[str, Any]
    turns: list[Turn] = field(default_factory=list)


class Extracting:
    """One import of conversations; what was stored of a part is known by its key, and the part is asked about once."""

    def __init__(self, call: Call, user: str, model: str, found: Recognised) -> None:
        self._call = call
        self._user = user
        self._found = found
        self._client, name = _client(model)
        self._extractor: FactExtractor = facts(self._client, model=name, on_failure="drop")
        self._parts = self._good = self._there = self._failed = 0

    async def run(self, memory: AsyncMemory, bar: Progress) -> None:
        """Ask about every part that has not been stored, and store what the model finds."""
        try:
            for part in self._all():
                self._parts += 1
                await self._store(memory, part)
                bar(self._parts, None)
                self._call.resume = f"{count(self._good, 'memory')} stored, and the same command goes on"
        finally:
            self._extractor.close()
            await self._client.close()

    @property
    def failed(self) -> int:
        """How many parts, or turns of the file, were not understood."""
        return self._failed

    def report(self) -> None:
        """Print the counts."""
        if self._call.out.as_json:
            counts = {"parts": self._parts, "stored": self._good, "exists": self._there, "failed": self._failed}
            self._call.out.json({"format": self._found.name, **counts})
            return
        said = [f"{count(self._good, 'memory')} stored, found in {count(self._parts, 'part')} of conversations"]
        said += [f"{self._there} of which were there already"] if self._there else []
        said += [f"{self._failed} failed"] if self._failed else []
        self._call.out.line(", ".join(said))

    def _all(self) -> Iterator[_Part]:
        part: _Part | None = None
        for number, fields in self._found.entries():
            if isinstance(fields, InvalidRequestError):
                self._bad(f"{self._found.unit} {number}: {fields.message}")
                continue
            place = fields["x-openproto"]
            new = part is None or place["conversation"] != part.turns[0].conversation
            if part is not None and (new or (len(part.turns) >= TOGETHER and fields["tags"] == ["user"])):
                yield part
                part = None
            part = part or self._part(fields)
            self._say(part, fields)
        if part is not None:
            yield part

    def _part(self, fields: Fields) -> _Part:
        place = fields["x-openproto"]
        text = f"{self._user}\0{self._found.name}\0{place['conversation']}\0{place['turn']}"
        name = blake2b(text.encode(errors="surrogatepass"), digest_size=16).hexdigest()
        return _Part(f"import:{name}", dict(fields[IMPORTED]))

    def _say(self, part: _Part, fields: Fields) -> None:
        place, text = fields["x-openproto"], fields["content"]
        where = {"conversation": place["conversation"], "position": place["turn"]}
        if fields["tags"] == ["user"]:
            part.turns.append(Turn(self._user, text, None, **where))
        elif part.turns and part.turns[-1].reply is None:
            last = part.turns[-1]
            part.turns[-1] = Turn(self._user, last.user, text, conversation=last.conversation, position=last.position)
        else:
            part.turns.append(Turn(self._user, None, text, **where))

    async def _store(self, memory: AsyncMemory, part: _Part) -> None:
        with suppress(NotFoundError):
            await memory.get(user_id=self._user, key=f"{part.name}:0")
            self._there += 1
            return
        made = await self._extractor.extract(part.turns, memory)
        if made.error is not None:
            talk = part.turns[0].conversation
            self._bad(f"conversation {talk}: {type(made.error).__name__}; the same command asks about this part again")
            return
        for id in made.ended:
            with suppress(NotFoundError):
                await memory.update(id, user_id=self._user, valid_to=datetime.now(UTC))
        items = [
            {**item, "user_id": self._user, "key": f"{part.name}:{number}", IMPORTED: part.about}
            for number, item in enumerate(made.items)
        ]
        # The first one last: it says that all are there.
        for item in (*items[1:], *items[:1]):
            try:
                await memory.add(**item)
                self._good += 1
            except OpenProtoError as error:
                if error.code != "conflict":  # an earlier run was interrupted after it had stored this one
                    raise

    def _bad(self, what: str) -> None:
        self._failed += 1
        self._call.out.warn(what)


def _client(model: str) -> tuple[Any, str]:
    service, _, name = model.partition("/")
    if not name or service not in ("openai", "anthropic"):
        raise Misuse("--extract names a model as openai/NAME or anthropic/NAME")
    try:
        if service == "openai":
            from openai import AsyncOpenAI

            return AsyncOpenAI(), name
        from anthropic import AsyncAnthropic

        return AsyncAnthropic(), name
    except ModuleNotFoundError as error:
        raise Misuse(f"--extract {service}/... needs the package {service!r}", f"pip install {service}") from error
    except Exception as error:  # an SDK says in an error of its own that it lacks its key
        raise Misuse(f"{service} cannot be asked", f"set {service.upper()}_API_KEY") from error
