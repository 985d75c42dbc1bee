"""Chat messages as a memory: `[{"role": ..., "content": ...}, ...]` in the place of a text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from openproto.errors import InvalidRequestError
from openproto.fields import plain

Messages: TypeAlias = Sequence[Mapping[str, Any]]


def as_content(content: Any) -> Any:
    """Return chat messages as a text of one line each, `role: text`; anything else is returned as it is.

    A message is a mapping or an object with `role` and `content`, as the SDKs of OpenAI and Anthropic return them; one
    alone stands for a list of one. Its content is a text or a list of parts, of which those of text count; messages
    without any text, such as tool calls, are passed over. Raises InvalidRequestError for a list of anything else.
    """
    if _is_message(content):
        content = [content]
    if not isinstance(content, (list, tuple)):
        return content
    lines: list[str] = []
    for number, message in enumerate(content):
        if not isinstance(role := _member(message, "role"), str):
            raise InvalidRequestError(f"content.{number}: must be a message with a role and content")
        text = _text(_member(message, "content"), number)
        if text.strip():
            lines.append(f"{plain(role)}: {text}")
    return "\n".join(lines)


def _is_message(value: Any) -> bool:
    return not isinstance(value, (str, list, tuple)) and isinstance(_member(value, "role"), str)


def _member(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)


def _text(content: Any, number: int) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, Iterable):
        raise InvalidRequestError(f"content.{number}.content: must be a text or a list of parts")
    texts = (part if isinstance(part, str) else _member(part, "text") for part in content)
    return "\n".join(text for text in texts if isinstance(text, str))
