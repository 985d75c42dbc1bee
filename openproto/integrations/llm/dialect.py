"""What differs between the APIs: where the user's words stand, where memories go, and how a reply reads."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple


class Said(NamedTuple):
    """What the user said last, and whether it is new in this call or was said before a tool loop began."""

    text: str | None
    is_new: bool

    @property
    def is_blank(self) -> bool:
        """Whether there is nothing to search for, and nothing to keep."""
        return not self.text or self.text.isspace()


@dataclass
class Reply:
    """The model's reply as far as it has been read: its text, the response's id, and whether the end was seen."""

    parts: list[str] = field(default_factory=list)
    id: str | None = None
    complete: bool = False
    choices: int = 1
    """How many replies the caller asked for."""

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self.parts)


class Dialect(ABC):
    """One API of an SDK. Arguments are what the caller passed, and are never changed: others are returned."""

    conversation: ClassVar[str]
    """The argument that holds the conversation."""

    def readable(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments with a conversation that can be read more than once."""
        copied = dict(arguments)
        conversation = copied.get(self.conversation)
        if isinstance(conversation, Iterable) and not isinstance(conversation, Sequence):
            copied[self.conversation] = list(conversation)
        return copied

    def said(self, arguments: Mapping[str, Any]) -> Said:
        """Return what the user said last."""
        conversation = arguments.get(self.conversation)
        if isinstance(conversation, str):
            return Said(conversation, is_new=True)
        messages = conversation if isinstance(conversation, Sequence) else ()
        is_new = True
        for message in reversed(messages):
            if text := self.spoken(message):
                return Said(text, is_new)
            # Reminders for the model and the beginning of its reply may follow what the user said; tools' results are
            # the middle of a loop.
            is_new = is_new and look(message, "role") in ("system", "developer", "assistant")
        return Said(None, is_new=False)

    def spoken_before(self, arguments: Mapping[str, Any]) -> list[tuple[str, str]]:
        """Return the role and the text of everything that was said in the conversation, the newest last."""
        conversation = arguments.get(self.conversation)
        messages = conversation if isinstance(conversation, Sequence) and not isinstance(conversation, str) else ()
        said = ((str(look(message, "role")), _text_of(look(message, "content"))) for message in messages)
        return [(role, text) for role, text in said if text and role in ("user", "assistant")]

    def spoken(self, message: Any) -> str | None:
        """Return the user's own words in `message`."""
        if look(message, "role") != "user":
            return None
        content = look(message, "content")
        if isinstance(content, str):
            return content
        blocks = content if isinstance(content, Sequence) else ()
        if any(look(block, "type") == "tool_result" for block in blocks):
            return None
        texts = [look(block, "text") for block in blocks if look(block, "type") in ("text", "input_text")]
        return "\n".join(text for text in texts if isinstance(text, str))

    @abstractmethod
    def with_memories(self, arguments: Mapping[str, Any], block: str) -> dict[str, Any]:
        """Return the arguments with `block` after all that the caller says to the model as its system."""

    @abstractmethod
    def read(self, response: Any, reply: Reply) -> None:
        """Note a whole response."""

    @abstractmethod
    def feed(self, event: Any, reply: Reply) -> None:
        """Note an event of a stream, as it comes from the API or from the SDK's helpers."""


def _text_of(content: Any) -> str:
    if isinstance(content, str):
        return content.strip()
    blocks = content if isinstance(content, Sequence) else ()
    texts = [look(block, "text") for block in blocks if look(block, "type") in ("text", "input_text", "output_text")]
    return "\n".join(text for text in texts if isinstance(text, str)).strip()


def look(thing: Any, name: str) -> Any:
    """Return a field of a message, which callers write as a mapping or take from a response; None if it has none."""
    return thing.get(name) if isinstance(thing, Mapping) else getattr(thing, name, None)
