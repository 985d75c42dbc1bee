"""The exports of ChatGPT and Claude: what they remember, and the conversations themselves, turn by turn.

A turn becomes a memory of what one side said, word for word, with its place in the conversation, under which searching
finds what was said next to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from openproto.portable.formats.format import Fields, Item, JsonFormat, memory
from openproto.portable.formats.text import paragraphs

_ROLES = {"user": "user", "human": "user", "assistant": "assistant"}


def _turns(app: str, talk: Any, title: Any, said: Iterable[tuple[Any, Any, Any, Any]]) -> Iterator[Fields]:
    """Yield a memory for each side's words, given as role, text, moment, and id."""
    turn = 0
    for role, text, at, id in said:
        if role not in _ROLES or not (isinstance(text, str) and text.strip()):
            continue  # tools, system messages, and pictures
        about = {"conversation": talk, "title": title or None, "created_at": at}
        fields = memory(app, about, text, tags=[_ROLES[role]], id=f"{talk}/{id or turn}")
        yield {**fields, "x-openproto": {"conversation": str(talk), "turn": turn}}
        turn += 1


def _chatgpt_turns(talk: Item) -> Iterable[Fields]:
    mapping: Mapping[str, Any] = talk["mapping"]
    # The branch that was last shown; an edited question is in another one. Without its end, all there is.
    path: list[Any] = []
    node = mapping.get(str(talk.get("current_node")))
    seen = 0
    while node is not None and seen <= len(mapping):
        path.append(node)
        node = mapping.get(str(node.get("parent")))
        seen += 1
    messages = [node.get("message") for node in (reversed(path) if path else mapping.values())]
    said = (
        (
            (message.get("author") or {}).get("role"),
            "\n".join(part for part in (message.get("content") or {}).get("parts") or [] if isinstance(part, str)),
            message.get("create_time"),
            message.get("id"),
        )
        for message in messages
        if message
    )
    name = talk.get("conversation_id") or talk.get("id") or f"chatgpt/{talk.get('create_time')}"
    yield from _turns("chatgpt", name, talk.get("title"), said)


def _claude_turns(talk: Item) -> Iterable[Fields]:
    said = (
        (message.get("sender"), message.get("text") or _text(message), message.get("created_at"), message.get("uuid"))
        for message in talk["chat_messages"]
    )
    yield from _turns("claude", talk.get("uuid"), talk.get("name"), said)


def _text(message: Item) -> str:
    parts = [part.get("text") for part in message.get("content") or [] if part.get("type") == "text"]
    return "\n".join(part for part in parts if part)


def _claude_memories(item: Item) -> Iterable[Fields]:
    account = item.get("account_uuid")
    projects = item.get("project_memories") or {}
    for project, text in [(None, item.get("conversations_memory")), *projects.items()]:
        for _, heading, content in paragraphs(enumerate((text or "").splitlines(), 1)):
            about = {"heading": heading or None, "account_uuid": account, "project": project}
            yield memory("claude", about, content, scope=f"project/{project}" if project else None)


def _chatgpt_memory(item: Item) -> Iterable[Fields]:
    yield memory("chatgpt", item, item.get("content"), taken=["content"], id=item.get("id"))


def _chatgpt_memories(document: Item) -> Sequence[Any] | None:
    found = document.get("memories")
    return found if isinstance(found, list) and any(name.startswith("memory_") for name in document) else None


CHATGPT_MEMORIES = JsonFormat(
    "chatgpt-memories",
    "what ChatGPT remembers",
    "its items have content and enabled",
    lambda item: {"content", "enabled"} <= item.keys(),
    _chatgpt_memory,
    _chatgpt_memories,
)
CHATGPT = JsonFormat(
    "chatgpt",
    "conversations of ChatGPT",
    "its items have a mapping of messages",
    lambda item: isinstance(item.get("mapping"), dict),
    _chatgpt_turns,
    holds_conversations=True,
)
CLAUDE_MEMORIES = JsonFormat(
    "claude-memories",
    "what Claude remembers",
    "its items have conversations_memory",
    lambda item: "conversations_memory" in item or "project_memories" in item,
    _claude_memories,
    lambda document: [document] if "conversations_memory" in document else None,
)
CLAUDE = JsonFormat(
    "claude",
    "conversations of Claude",
    "its items have chat_messages",
    lambda item: isinstance(item.get("chat_messages"), list),
    _claude_turns,
    holds_conversations=True,
)
