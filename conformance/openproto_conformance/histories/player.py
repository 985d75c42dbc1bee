"""Playing a history: each step is asked of the clients and of the model, and the answers are compared."""

from __future__ import annotations

import asyncio
import contextlib
import copy
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from openproto import AsyncMemory, MemoryRecord, OpenProtoError
from openproto_conformance.bench import RETURN_WITHIN, Bench
from openproto_conformance.histories import compare
from openproto_conformance.histories.read_back import ReadBack
from openproto_conformance.histories.reading import Differs, names_of, outcome_of, value_of
from openproto_conformance.histories.steps import Copies, History, Made, Step, User, VersionOf
from openproto_conformance.model import Model
from openproto_conformance.model.auditing import Deed, audit_faults
from openproto_conformance.model.inputs import CHANGEABLE
from openproto_conformance.probe import strike_once

WATCHED = 1.0
"""Seconds for which nothing that was cancelled may happen any more."""

_ID_ARGUMENTS = frozenset({"since", "until", "as_of"})
NOWHERE = "no-such-id"


@dataclass(frozen=True)
class Difference:
    """Where an answer was not the model's."""

    step: Step
    call: str
    faults: tuple[str, ...]

    @property
    def kind(self) -> str:
        """What the difference is about, without its values: two of one kind are taken for one fault."""
        return f"{self.call} {self.faults[0].partition(':')[0]}"

    def __str__(self) -> str:
        return f"step {self.step.number}, {self.call}: {'; '.join(self.faults)}"


class Player(ReadBack):
    """Plays histories for fresh users on a few clients that stay open from one to the next."""

    def __init__(self, bench: Bench, clients: list[AsyncMemory], suffixes: Sequence[str], history: History) -> None:
        super().__init__(bench, suffixes)
        self.clients = clients
        self.history = history
        self._made: dict[Made, str] = {}
        self._cancelled = False
        self._raced = False
        self._patience = bench.backend.patience

    async def play(self) -> Difference | None:
        """Return the first difference, or None."""
        for step in self.history:
            if self._leaves_open(step):
                continue
            try:
                await getattr(self, f"_play_{step.verb.replace(' ', '_')}")(step)
            except Differs as end:
                call, faults = end.args
                return Difference(step, call, tuple(faults))
        return None

    def _leaves_open(self, step: Step) -> bool:
        """Whether the protocol leaves open what a step does: naming again what a record supersedes already."""
        calls = (self._resolved(call.arguments) for call in (step, *step.parts) if call.verb == "update")
        return any(
            not set(self.model.records.get(call["id"], {}).get("supersedes", ())).isdisjoint(call["supersedes"])
            for call in calls
            if call.get("supersedes")
        )

    # Steps that are no single call

    async def _play_read_back(self, step: Step) -> None:
        if self._cancelled:
            await asyncio.sleep(WATCHED)
            self._cancelled = False
        read = self.read_everything if step is self.history[-1] else self.read_new
        await read(self.clients, step.number)

    async def _play_reopen(self, step: Step) -> None:
        client = step.client % len(self.clients)
        await self.clients[client].close()
        self.clients[client] = await self.bench.open()

    async def _play_at_once(self, step: Step) -> None:
        if step.parts and step.parts[0].verb == "update":
            self._raced = True
            # What a key wrote may be named twice; of two updates of one record nobody knows which came last.
            parts = list({self._resolved(part.arguments)["id"]: part for part in step.parts}.values())
            for part, arguments, got in await self._together(parts):
                self._check_written(part, arguments, got)
        else:
            await asyncio.gather(*(self._play_one(part) for part in step.parts))

    async def _play_race(self, step: Step) -> None:
        """Whichever call came first, the others must be answered as if they had come after it."""
        self._raced = True
        answers = await self._together(step.parts)
        put: set[str] = set()
        for part, arguments, got in sorted(answers, key=lambda answer: isinstance(answer[-1], BaseException)):
            self._check_written(part, arguments, got, number=step.number)
            if part.verb == "put" and isinstance(got, MemoryRecord):
                put.add(got.id)
        for id in put:  # of several that were written, which came last?
            self.model.stirred[id] = ("version", "updated_at")
            self._compare("get(id)", await outcome_of(self._client(step).get(id)), id)

    async def _together(self, parts: Sequence[Step]) -> list[tuple[Step, dict[str, Any], Any]]:
        """Make the calls at once and return each with its arguments and its answer, once that is indexed."""
        calls = [self._call(part) for part in parts]
        answers = await asyncio.gather(*(outcome_of(call(**arguments)) for call, arguments in calls))
        return [
            (part, arguments, await self._indexed(self._client(part), got))
            for part, (_, arguments), got in zip(parts, calls, answers, strict=True)
        ]

    async def _play_cancelled(self, step: Step) -> None:
        """A cancelled write happened whole or not at all; what came of it is found out by reading."""
        part = step.parts[0]
        call, arguments = self._call(part)
        with contextlib.suppress(OpenProtoError):  # it may have been refused before it came so far
            await strike_once(lambda: call(**arguments), step.arguments["at"], "task.cancel", self._patience)
        await asyncio.sleep(RETURN_WITHIN)
        self._cancelled = True
        user = arguments.get("user_id") or str(self.model.records.get(arguments.get("id", ""), {}).get("user_id", ""))
        stored = {r.id: r async for r in self.clients[0].iter(user, page_size=500)} if user in self.users else {}
        new = [record for id, record in stored.items() if id not in self.model.records]
        if len(new) > 1:
            self._differ(f"a cancelled {part.verb}", [f"{len(new)} records came of one call"])
        changed = copy.deepcopy(self.model)
        assigned = new[0] if new else stored.get(arguments.get("id", "")) or self._by_key(arguments, stored)
        try:
            id = _apply(changed, part.verb, arguments, assigned)
        except OpenProtoError:
            return
        happened = bool(new) if part.verb == "add" else self._is_as_in(changed, stored, user)
        entries = changed.writes[len(self.model.writes) :]
        if happened and not new and self._is_as_in(copy.deepcopy(self.model), stored, user):
            self.model.skips += entries  # it left no trace but, perhaps, an entry
        elif happened:
            if self.bench.capabilities.x_openproto.support.get("audit") == "emulated":
                # A journal shares no transaction with the backend, which may have written and never answered.
                del changed.writes[len(self.model.writes) :]
                changed.skips += entries
            self.model = changed
            if isinstance(id, str):
                self._made[Made(step.number)] = id

    def _is_as_in(self, model: Model, stored: dict[str, MemoryRecord], user: str) -> bool:
        for record in stored.values():
            model.see(record)
        return model.list(user) == list(stored) and all(
            not compare.record_faults(record, model.record(record.id), self._own) for record in stored.values()
        )

    @staticmethod
    def _by_key(arguments: dict[str, Any], stored: dict[str, MemoryRecord]) -> MemoryRecord | None:
        key = arguments.get("key")
        return next((r for r in stored.values() if key is not None and getattr(r, "key", None) == key), None)

    # Single calls

    async def _play_one(self, step: Step) -> None:
        await getattr(self, f"_play_{step.verb}")(step)

    async def _write(self, step: Step) -> None:
        call, arguments = self._call(step)
        got = await self._indexed(self._client(step), await outcome_of(call(**arguments)))
        self._check_written(step, arguments, got)

    _play_add = _play_update = _play_put = _play_delete = _play_delete_all = _write

    async def _play_add_many(self, step: Step) -> None:
        client = self._client(step)
        items = [self._resolved(item) for item in step.arguments["items"]]
        answers = await client.add_many(items)
        if len(answers) != len(items):
            self._differ("add_many", [f"{len(answers)} outcomes for {len(items)} items"])
        before, began = set(self.model.records), len(self.model.writes)
        read_again: list[tuple[str, Any, Any]] = []
        for n, (item, answer) in enumerate(zip(items, answers, strict=True)):
            got = await self._indexed(client, answer)
            assigned = got if isinstance(got, MemoryRecord) else None
            wanted = value_of(partial(self.model.add, assigned=assigned, **item))
            what = f"add_many, item {n}"
            if wanted in before:  # another item may have superseded it since
                self._differ(what, compare.outcome_faults(got, wanted) or compare.ids_faults([got.id], [wanted]))
            elif got is not answer:  # read when all was written
                read_again.append((what, got, wanted))
            else:
                self._compare(what, got, wanted)
            if isinstance(wanted, str):
                self._made[Made(step.number, n)] = wanted
                before.add(wanted)
        self.model.were_one_call(began)
        for what, got, wanted in read_again:
            self._compare(what, got, wanted)

    async def _play_get(self, step: Step) -> None:
        call, arguments = self._call(step)
        got = await outcome_of(call(**arguments))
        self._compare(f"get({names_of(arguments)})", got, value_of(lambda: self.model.get(**arguments)))
        if isinstance(got, MemoryRecord):
            self._reads.append((self._client(step), Deed("get", got.user_id, got.id)))

    async def _play_list(self, step: Step) -> None:
        await self._compare_list(self._client(step), self._resolved(step.arguments))

    async def _play_search(self, step: Step) -> None:
        await self._compare_search(self._client(step), self._resolved(step.arguments))

    async def _play_context(self, step: Step) -> None:
        await self._compare_context(self._client(step), self._resolved(step.arguments))

    async def _play_scopes(self, step: Step) -> None:
        call, arguments = self._call(step)
        self._check_equal("scopes", await outcome_of(call(**arguments)), lambda: self.model.scopes(**arguments))

    async def _play_users(self, step: Step) -> None:
        client, limit = self._client(step), step.arguments["limit"]
        page = await client.users(limit=limit)
        found = list(page.items)
        while page.next_cursor is not None:
            page = await client.users(limit=limit, cursor=page.next_cursor)
            found += page.items
        wanted = sorted(self.model.users())
        known = [user for user in found if user in self.users or user in wanted]
        self._differ("users", compare.ids_faults(known, wanted))

    async def _play_restore(self, step: Step) -> None:
        client, records = self._client(step), self._resolved(step.arguments)["records"]
        if not records:
            return
        got = await outcome_of(client.restore(records))
        for record in records if self._declared.features.async_ingestion else ():
            await self._indexed(client, await outcome_of(client.get(record.id)))
        wanted = self.model.restore(records)
        if (faults := compare.outcome_faults(got, wanted)) is None:
            pairs = zip(got, wanted, strict=False)
            faults = [
                f"{due.id}: wanted {due.outcome}, got {g.outcome}" for g, due in pairs if g.outcome != due.outcome
            ]
            faults += compare.ids_faults([outcome.id for outcome in got], [outcome.id for outcome in wanted])
        self._differ("restore", faults)

    async def _play_audit(self, step: Step) -> None:
        arguments = self._resolved(step.arguments)
        user, limit = arguments.pop("user_id"), arguments.pop("limit")
        client = self._client(step)
        done = [*self.model.writes, *(deed for asker, deed in self._reads if asker is client)]
        if app := arguments.get("app"):
            done = [deed for deed in done if deed.app == app]
        got = await outcome_of(client.audit(user, limit=limit, **arguments))
        if (faults := compare.outcome_faults(got, [])) is None:
            faults = audit_faults(
                got,
                done,
                [deed for deed in self.model.skips if app in (None, deed.app)],
                user_id=user,
                memory_id=arguments.get("memory_id"),
                limit=limit,
                in_order=not self._raced,
            )
        self._differ("audit", faults)

    def _check_written(self, step: Step, arguments: dict[str, Any], got: Any, number: int | None = None) -> None:
        assigned = got if isinstance(got, MemoryRecord) else None
        id = arguments.get("id", "")
        before, earlier = copy.deepcopy(self.model.records.get(id)), set(self.model.versions.get(id, ()))
        wanted = value_of(lambda: _apply(self.model, step.verb, arguments, assigned))
        what = f"{step.verb}({names_of(arguments)})"
        if step.verb == "delete_all":
            self._check_equal(what, got, lambda: wanted)
        elif step.verb == "delete":
            self._differ(what, compare.outcome_faults(got, wanted) or [])
        else:
            self._compare(what, got, wanted)
            if isinstance(wanted, str):
                self._made[Made(number or step.number)] = wanted
                after = self.model.records[wanted]
                if before and got.version in earlier and any(before.get(n) != after.get(n) for n in CHANGEABLE):
                    self._differ(what, ["version: one that the record had before the change"])

    # From steps to calls

    def _client(self, step: Step) -> AsyncMemory:
        return self.clients[step.client % len(self.clients)]

    def _call(self, step: Step) -> tuple[Callable[..., Awaitable[Any]], dict[str, Any]]:
        return getattr(self._client(step), step.verb), self._resolved(step.arguments)

    def _resolved(self, arguments: dict[str, Any]) -> dict[str, Any]:
        return {name: self._value_of(name, value) for name, value in arguments.items()}

    def _value_of(self, name: str, value: Any) -> Any:
        if isinstance(value, Made):
            id = self._made.get(Made(value.step, value.item), NOWHERE)
            if name in _ID_ARGUMENTS:
                record = self.model.records.get(id)
                return record["created_at"] if record else None
            return value.changed(id)
        if isinstance(value, User):
            return self.users[value.number]
        if isinstance(value, VersionOf):
            seen = self._last_seen.get(self._made.get(value.made, NOWHERE))
            return getattr(seen, "version", None) or "stale"
        if isinstance(value, Copies):
            seen_records = (self._last_seen.get(self._made.get(made, NOWHERE)) for made in value.made)
            copies = [r for r in seen_records if r and self.model.handovers.stand_in(r, self.model.records)]
            more = dict(value.more)
            if "user_id" in more:  # of this history alone, for where the first is refused this one is not
                more["user_id"] = f"{self.users[0]} {more['user_id']}"
            return copies + [record.model_copy(update=more) for record in copies[:1] if more]
        if name == "supersedes" and isinstance(value, list):
            return [self._value_of("id", made) for made in value]
        return value

    async def _indexed(self, client: AsyncMemory, got: Any) -> Any:
        """Wait until the client that wrote the record finds it: another one may not know that it must wait."""
        if isinstance(got, MemoryRecord) and got.status in ("queued", "indexing"):
            return await self.bench.indexed(got, client)
        return got


def _apply(model: Model, verb: str, arguments: dict[str, Any], assigned: MemoryRecord | None) -> Any:
    method = getattr(model, verb)
    return method(**arguments) if verb in ("delete", "delete_all") else method(**arguments, assigned=assigned)
