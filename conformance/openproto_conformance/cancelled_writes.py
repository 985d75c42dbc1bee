"""Each writing verb, cancelled at every await: what each strike left is looked at, and again a second later."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar

from openproto import MemoryRecord, NotFoundError
from openproto_conformance.bench import Bench
from openproto_conformance.checks import Violation, ensure, equal

FIELDS: dict[str, Any] = {"scope": "kitchen", "tags": ["a", "b"], "confidence": 0.5, "x-note": {"n": 1}}
NEW: dict[str, Any] = {"scope": "cellar", "tags": ["c"], "confidence": 0.25}


class CancelledWrite:
    """One writing verb, each time on a subject that nothing else touches."""

    verb: ClassVar[str]
    action: ClassVar[str]

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.user = bench.user(self.verb)
        self.subjects: list[Any] = []
        self._numbers = itertools.count()

    async def prepare(self) -> Any:
        """Make the next subject and return it."""
        self.subjects.append(await self._subject(next(self._numbers)))
        return self.subjects[-1]

    def make(self, subject: Any = None) -> Awaitable[Any]:
        """Return the call on a subject, which is the newest unless one is given."""
        return self._call(self.subjects[-1] if subject is None else subject)

    async def states(self) -> list[bool]:
        """Return for each subject whether the write happened; fail where half of it did."""
        return [await self._happened(subject) for subject in self.subjects]

    async def _subject(self, number: int) -> Any:
        """Return something to write to."""
        content = f"the wombat{number} is grey"
        return await self.bench.add(content, user_id=self.user, **self.bench.supported(**FIELDS))

    def _call(self, subject: Any) -> Awaitable[Any]:
        """Return the write; each kind of write says which."""
        raise NotImplementedError

    async def _happened(self, subject: Any) -> bool:
        """Return whether it happened, whole; each kind of write looks for its own."""
        raise NotImplementedError

    async def found(self, word: str, wanted: list[str]) -> None:
        """Fail where search does not agree with what is stored."""
        bench = self.bench
        if "search" in bench.capabilities.verbs and not bench.capabilities.features.async_ingestion:
            hits = await bench.client.search(word, self.user, limit=100)
            found = [hit.memory.id for hit in hits if word in hit.memory.content.split()]
            equal(found, wanted, f"what search finds for {word!r} after a cancelled {self.verb}")

    async def stored(self, word: str) -> list[MemoryRecord]:
        """Return what is stored whose content has the word."""
        return [record for record in await self.bench.inventory(self.user) if word in record.content.split()]


class CancelledAdd(CancelledWrite):
    """An add with every field, which supersedes."""

    verb, action = "add", "add"

    async def _subject(self, number: int) -> Any:
        # Where supersession is emulated it is another call, which a cancellation may come before.
        native = self.bench.capabilities.x_openproto.support.get("supports_supersession") == "native"
        old = await super()._subject(number) if native else None
        return f"new{number}", old

    def _call(self, subject: Any) -> Awaitable[Any]:
        word, old = subject
        fields: dict[str, Any] = self.bench.supported(**FIELDS) | ({"supersedes": [old.id]} if old else {})
        return self.bench.client.add(f"the {word} is red", user_id=self.user, idempotency_key=word, **fields)

    async def _happened(self, subject: Any) -> bool:
        word, old = subject
        stored = await self.stored(word)
        ensure(len(stored) <= 1, f"one add made {len(stored)} records")
        for record in stored:
            wanted = self.bench.supported(**FIELDS)
            got = {name: getattr(record, name, None) for name in wanted if name != "x-note"} | record.extensions
            equal(got, wanted, "the fields of what a cancelled add stored")
        if old is not None:
            by = (await self.bench.client.get(old.id)).superseded_by
            equal(by, stored[0].id if stored else None, "superseded_by of the old record after a cancelled add")
        await self.found(word, [record.id for record in stored])
        return bool(stored)


class CancelledAddMany(CancelledWrite):
    """A batch of three: each item is whole or absent."""

    verb, action = "add_many", "add"

    async def _subject(self, number: int) -> Any:
        return f"batch{number}"

    def _call(self, subject: Any) -> Awaitable[Any]:
        item = {"content": f"the {subject} is red", "user_id": self.user, **self.bench.supported(**FIELDS)}
        return self.bench.client.add_many([item, item, item])

    async def _happened(self, subject: Any) -> bool:
        stored = await self.stored(subject)
        for record in stored:
            equal((record.tags, record.extensions), (["a", "b"], {"x-note": {"n": 1}}), "the fields of an item")
        ensure(len(stored) <= 3, f"three items made {len(stored)} records")
        return len(stored) == 3


class CancelledUpdate(CancelledWrite):
    """An update of several fields."""

    verb, action = "update", "update"

    def _call(self, subject: Any) -> Awaitable[Any]:
        content = subject.content.replace("grey", "red")
        return self.bench.client.update(subject.id, content=content, **self.bench.supported(**NEW))

    async def _happened(self, subject: Any) -> bool:
        record = await self.bench.client.get(subject.id)
        changed: bool = record.content != subject.content
        wanted = self.bench.supported(**(NEW if changed else FIELDS))
        got = {name: getattr(record, name) for name in wanted if name != "x-note"}
        equal(got, {name: wanted[name] for name in got}, "the other fields, beside the content")
        await self.found(subject.content.split()[1], [subject.id])
        return changed


class CancelledDelete(CancelledWrite):
    """A delete: the record is in every verb or in none."""

    verb, action = "delete", "delete"

    def _call(self, subject: Any) -> Awaitable[Any]:
        return self.bench.client.delete(subject.id)

    async def _happened(self, subject: Any) -> bool:
        try:
            await self.bench.client.get(subject.id)
        except NotFoundError:
            there = False
        else:
            there = True
        word = subject.content.split()[1]
        equal(bool(await self.stored(word)), there, "whether list has the record, beside get")
        await self.found(word, [subject.id] if there else [])
        return not there


class CancelledDeleteAll(CancelledWrite):
    """A `delete_all` of three records by their tag."""

    verb, action = "delete_all", "delete"

    async def _subject(self, number: int) -> Any:
        word = f"many{number}"
        await self.bench.add_many([{"content": word, "user_id": self.user, "tags": [word]}] * 3)
        return word

    def _call(self, subject: Any) -> Awaitable[Any]:
        return self.bench.client.delete_all(self.user, tag=subject)

    async def _happened(self, subject: Any) -> bool:
        return not await self.stored(subject)


class CancelledPut(CancelledUpdate):
    """A put that replaces."""

    verb, action = "put", "update"

    async def _subject(self, number: int) -> Any:
        content = f"the wombat{number} is grey"
        fields = {name: value for name, value in FIELDS.items() if name != "x-note"}
        key = f"key {number}"
        return await self.bench.client.put(content, user_id=self.user, key=key, **self.bench.supported(**fields))

    def _call(self, subject: Any) -> Awaitable[Any]:
        content = subject.content.replace("grey", "red")
        return self.bench.client.put(content, user_id=self.user, key=subject.key, **self.bench.supported(**NEW))


def cancelled_writes(bench: Bench) -> list[CancelledWrite]:
    """Return one for each writing verb that the provider declares."""
    needs: dict[Callable[[Bench], CancelledWrite], bool] = {
        CancelledAdd: True,
        CancelledAddMany: True,
        CancelledUpdate: "update" in bench.capabilities.verbs,
        CancelledDelete: "delete" in bench.capabilities.verbs,
        CancelledDeleteAll: "delete" in bench.capabilities.verbs,
        CancelledPut: bench.capabilities.x_openproto.support.get("put", "none") != "none",
    }
    return [kind(bench) for kind, declared in needs.items() if declared]


async def check_audited(write: CancelledWrite, states: list[bool]) -> None:
    """Fail where the audit log does not hold exactly what happened."""
    # A journal next to the backend may miss a write that was cancelled between the two.
    native = write.bench.capabilities.x_openproto.support.get("audit") == "native"
    if not native or write.verb in ("add_many", "delete_all", "put"):
        return
    for subject, happened in zip(write.subjects, states, strict=True):
        stored = await write.stored(subject[0]) if write.verb == "add" else [subject]
        for record in stored:
            entries = await write.bench.client.audit(write.user, memory_id=record.id)
            count = sum(entry.action == write.action for entry in entries)
            if count != happened:
                raise Violation(
                    f"a cancelled {write.verb} that did{'' if happened else ' not'} happen has {count} entries"
                )
