"""Which records a question is about: scope, tags, time of creation, and validity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from openproto.errors import InvalidRequestError
from openproto_conformance.model import limits


@dataclass(frozen=True)
class Selection:
    """The filters that the reading verbs and `delete_all` share; each narrows what the others leave."""

    user_id: str
    scope: str | None = None
    tags: tuple[str, ...] = ()
    since: datetime | None = None
    until: datetime | None = None

    @classmethod
    def of(
        cls,
        user_id: str,
        scope: str | None = None,
        tag: str | Sequence[str] | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> Selection:
        """Return the filters as a caller writes them: a tag or a list of tags, and the three spellings of a node."""
        limits.CHECKS["user_id"](user_id)
        tags = (tag,) if isinstance(tag, str) else tuple(tag or ())
        limits.check_tags(tags)
        return cls(
            user_id,
            None if scope is None else node_of(scope),
            tags,
            None if since is None else limits.moment(since, "since"),
            None if until is None else limits.moment(until, "until"),
        )

    def takes(self, record: dict[str, Any]) -> bool:
        """Whether the record is the user's, in the scope, bears every tag, and was created within the bounds."""
        return (
            record["user_id"] == self.user_id
            and (self.scope is None or is_within(record["scope"], self.scope))
            and all(tag in record["tags"] for tag in self.tags)
            and (self.since is None or self.since <= record["created_at"])
            and (self.until is None or record["created_at"] <= self.until)
        )


def node_of(scope_filter: str) -> str | None:
    """Return the node that `coding`, `coding/`, and `coding/*` all name; None for `*`, which names everything."""
    if scope_filter == "*":
        return None
    node = scope_filter.removesuffix("/*") if scope_filter.endswith("/*") else scope_filter.removesuffix("/")
    if not node:
        raise InvalidRequestError("a scope filter names a node")
    limits.check_scope(node)
    return node


def is_within(scope: str | None, node: str) -> bool:
    """Whether a scope is the node or lies beneath it: `coding/x` lies beneath `coding`, and `codingx` does not."""
    return scope is not None and (scope == node or scope.startswith(f"{node}/"))
