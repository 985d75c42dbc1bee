"""What is to be moved from one store to another, and what of it the other one cannot keep."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from math import inf
from typing import TypeAlias

from openproto import AsyncMemory, Capabilities, MemoryRecord, gather_bounded
from openproto.models import Features
from openproto.portable.histories import keeps_histories

Show: TypeAlias = Callable[[int, int | None], None]
"""Called with how many records of how many are done."""

PAGE = 500
_USERS_AT_ONCE = 4

ANEW = ("id", "created_at", "updated_at")
"""What a record that is added anew does not keep."""

HISTORY = "moment of supersession"
"""What is lost where one of the two sides has no histories: it follows from the record alone only where nothing of the
record was changed since it was made, and where its successor is there."""


@dataclass(slots=True)
class Survey:
    """What is to be moved, and what of it the target cannot keep."""

    restores: bool
    """Whether the target takes records as they are."""
    has_versions: bool
    unkept: list[str]
    """For what the target has no place at all."""
    users: dict[str, Counter[str | None]] = field(default_factory=dict)
    """How many records each user has in each scope; None stands for no scope."""
    cannot_keep: Counter[str] = field(default_factory=Counter)
    """In how many records a field would be lost."""

    @property
    def records(self) -> int:
        """How many records there are."""
        return sum(scopes.total() for scopes in self.users.values())


async def users_of(memory: AsyncMemory) -> list[str]:
    """Return every user that has records."""
    page = await memory.users(limit=PAGE)
    users = page.items
    while page.next_cursor is not None:
        page = await memory.users(limit=PAGE, cursor=page.next_cursor)
        users = [*users, *page.items]
    return users


def has_versions(target: Capabilities) -> bool:
    """Return whether a record is changed only if it is as it was read, where that is asked for."""
    return target.x_openproto.support.get("version", "none") != "none"


async def survey(source: AsyncMemory, target: AsyncMemory, users: Iterable[str], show: Show) -> Survey:
    """Read everything that is to be moved, or count it where nothing of it can be lost; write nothing."""
    declared = await target.capabilities()
    losses = _Losses(declared, keeps_histories(source) and keeps_histories(target))
    counts_only = losses.none_of((await source.capabilities()).features)
    found = Survey(losses.restores, has_versions(declared), losses.unkept)
    done = 0

    async def read(user: str) -> None:
        nonlocal done
        scopes = found.users[user]
        ids: set[str] = set()
        named: Counter[str] = Counter()
        async for record in source.iter(user, page_size=PAGE):
            scopes[record.scope] += 1
            for name in losses.of(record):
                found.cannot_keep[name] += 1
            if losses.of_history and record.superseded_by is not None:
                named[record.superseded_by] += 1
            ids.add(record.id)
            done += 1
            show(done, None)
        if gone := sum(count for id, count in named.items() if id not in ids):
            found.cannot_keep[HISTORY] += gone

    found.users = {user: Counter() for user in users}
    if counts_only:
        async with source._session.provider.snapshot(vectors=False) as snapshot:
            for user, scopes in found.users.items():
                scopes.update(await snapshot.counts(user))
                done += scopes.total()
                show(done, None)
        return found
    await gather_bounded((read(user) for user in found.users), limit=_USERS_AT_ONCE)
    return found


class _Losses:
    """What a target cannot keep of a record, as far as it declares that."""

    def __init__(self, target: Capabilities, has_histories: bool) -> None:
        support, features = target.x_openproto.support, target.features
        self.restores = support.get("restore", "none") != "none"
        self._longest = features.max_content_length
        keeps = {
            "key": self.restores or support.get("key", "none") != "none",
            "scope": features.scopes != "none",
            "supersedes": features.supports_supersession,
        }
        self.unkept = [name for name, is_kept in keeps.items() if not is_kept]
        self.of_history = "supersedes" not in self.unkept and not (self.restores and has_histories)
        """Whether moments of supersession are lost."""

    def none_of(self, source: Features) -> bool:
        """Say whether nothing that such a source can hold would be lost."""
        fits = self._longest is None or (source.max_content_length or inf) <= self._longest
        return self.restores and fits and not self.unkept and not self.of_history

    def of(self, record: MemoryRecord) -> Iterable[str]:
        """Yield the names of the fields that would be lost."""
        if self._longest is not None and len(record.content) > self._longest:
            yield "content"
        yield from (name for name in self.unkept if getattr(record, name))
        if not self.restores:
            yield from (name for name in ANEW if getattr(record, name) is not None)
        begins_unsaid = self.of_history and record.supersedes and record.valid_from is None
        if begins_unsaid and (record.updated_at is not None or not self.restores):
            yield HISTORY
