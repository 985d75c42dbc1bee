"""Chat messages as a memory: `[{"role": ..., "content": ...}, ...]` in the place of a text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from openproto.errors import InvalidRequestError

Messages: TypeAlias = Sequence[Mapping[str, Any]]


def as_content(content: Any) -> Any:
    """Return chat messages as a text of one line each, `role: text`; what are no messages is returned as it is.

    A message's content is a text or a list of parts, of which those of text count; messages without any text, such as
    tool calls, are passed over. Raises InvalidRequestError for a list of anything else.
    """
    if not isinstance(content, (list, tuple)):
        return content
    lines: list[str] = []
    for number, message in enumerate(content):
        if not isinstance(message, Mapping) or not isinstance(role := message.get("role"), str):
            raise InvalidRequestError(f"content.{number}: must be a message with a role and content")
        text = _text(message.get("content"), number)
        if text.strip():
            lines.append(f"{role}: {text}")
    return "\n".join(lines)


def _text(content: Any, number: int) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, Iterable):
        raise InvalidRequestError(f"content.{number}.content: must be a text or a list of parts")
    texts: list[str] = []
    for part in content:
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, Mapping) and isinstance(text := part.get("text"), str):
            texts.append(text)
    return "\n".join(texts)
