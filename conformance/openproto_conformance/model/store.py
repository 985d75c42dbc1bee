"""`Model`: one store of the protocol, verb by verb.

What a store decides by itself cannot be foretold: ids, moments of writing, versions. A writing verb is therefore given
the record that the real store `assigned`, and takes those fields from it; everything else is the contract's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, TypeAlias

from openproto.errors import ConflictError, InvalidRequestError, NotFoundError
from openproto.models import MemoryRecord, RestoreOutcome, ScopeCount
from openproto_conformance.model import limits
from openproto_conformance.model.auditing import Deed
from openproto_conformance.model.either import refuse_any
from openproto_conformance.model.handovers import Handovers
from openproto_conformance.model.inputs import change_fields, input_fields, plain, same
from openproto_conformance.model.selection import Selection, is_within, node_of

Stored: TypeAlias = dict[str, Any]

ASSIGNED = ("id", "created_at", "updated_at", "version", "embedding_model", "status")
"""What the store decides when it makes a record."""

CHANGING = ASSIGNED[2:]
"""What it decides anew at each change."""


class Model:
    """What a store of this protocol holds and answers."""

    def __init__(self, *, keys_outlive: bool = True) -> None:
        self._keys_outlive = keys_outlive
        self.records: dict[str, Stored] = {}
        self.deleted: set[str] = set()
        self.handovers = Handovers()
        self.stirred: dict[str, tuple[str, ...]] = {}
        """Records that a write to another one changed, or that came back: what of them is another one, not yet seen."""
        self.versions: dict[str, set[str]] = {}
        self.latest = datetime.min.replace(tzinfo=UTC)
        """The newest moment that the store gave to a write."""
        self.writes: list[Deed] = []
        """What an audit log must hold of writes, oldest first."""
        self.skips: list[Deed] = []
        """What it may hold as well: calls of `add` that found a record and wrote none, as a read is recorded."""
        self._used: dict[tuple[str, str], tuple[Stored, str]] = {}
        """What was added under each user's idempotency keys; it outlives the record."""

    # Writing

    def add(
        self,
        *,
        idempotency_key: str | None = None,
        on_duplicate: str = "keep",
        assigned: MemoryRecord | None = None,
        **given: Any,
    ) -> str:
        """Store a new record and return its id.

        The same idempotency key with the same input names the first record; with another input, or after that record
        was deleted, it is a conflict. What a record of the same scope says already is done as `on_duplicate` says.
        """
        limits.refuse_unless(on_duplicate in ("keep", "skip", "supersede"), "on_duplicate is none of its words")
        fields = input_fields(given)
        asked: Stored = {**fields, "on_duplicate": on_duplicate}
        used: Stored = {}
        if idempotency_key is not None:
            limits.CHECKS["idempotency_key"](idempotency_key)
            used, id = self._used.get((fields["user_id"], idempotency_key), ({}, ""))
            if used and same(used, asked) and id in self.records:
                return id
        refuse_any(
            lambda: _check_unused(used),
            lambda: self._check_key(fields),
            lambda: self._check_predecessors(fields["user_id"], fields["supersedes"]),
        )
        twins = self._twins(fields) if on_duplicate != "keep" else []
        if on_duplicate == "skip" and twins and fields["key"] is None and not fields["supersedes"]:
            self.skips.append(Deed("add", fields["user_id"], twins[0], fields["scope"], _app(fields)))
            return twins[0]
        if on_duplicate == "supersede":
            fields["supersedes"] = list(dict.fromkeys([*fields["supersedes"], *twins]))
        record = {**fields, **_decided(assigned, ASSIGNED)}
        id = str(record["id"])
        self.records[id] = record
        self._take_over(record, fields["supersedes"], record["created_at"])
        if idempotency_key is not None:
            self._used[fields["user_id"], idempotency_key] = (asked, id)
        self._wrote("add", record, _app(record))
        return id

    def update(
        self,
        id: str,
        *,
        user_id: str | None = None,
        if_version: str | None = None,
        assigned: MemoryRecord | None = None,
        **given: Any,
    ) -> str:
        """Change what is named: None clears, what is not named stays; `supersedes` is added to."""
        changes = change_fields(given)
        _check_not_itself(id, changes.get("supersedes") or ())
        record = self._of(id, user_id)
        named = changes.pop("supersedes", ())
        new = [old for old in named or () if old not in record["supersedes"]]
        refuse_any(
            lambda: self._check_version(record, if_version),
            lambda: limits.check_interval(record["valid_from"], changes.get("valid_to")),
            lambda: self._check_predecessors(record["user_id"], new),
        )
        if named is None:
            self._stir(self.handovers.release(id))
            record["supersedes"] = []
        record.update(changes)
        record["supersedes"] = [*record["supersedes"], *new]
        record.update(_decided(assigned, CHANGING))
        self._take_over(record, new, record["updated_at"] or record["created_at"])
        self._wrote("update", record)
        return id

    def put(
        self, *, key: str, if_version: str | None = None, assigned: MemoryRecord | None = None, **given: Any
    ) -> str:
        """Create the record of that key, or replace all its fields and keep its id and the moment of its creation."""
        fields = input_fields({**given, "key": key})
        known = self._by_key(fields["user_id"], key)
        refuse_any(
            lambda: _check_not_itself(known and known["id"], fields["supersedes"]),
            lambda: self._check_state(known, if_version),
            lambda: self._check_predecessors(fields["user_id"], fields["supersedes"]),
        )
        if known is None:
            return self.add(assigned=assigned, **{**given, "key": key})
        self._stir(self.handovers.release(known["id"]))
        kept = {"id": known["id"], "created_at": known["created_at"]}
        known.clear()
        known.update({**fields, **kept, **_decided(assigned, CHANGING)})
        self._take_over(known, fields["supersedes"], known["updated_at"] or known["created_at"])
        self._wrote("update", known, _app(known))
        return str(known["id"])

    def delete(self, id: str, *, user_id: str | None = None, if_version: str | None = None) -> None:
        """Remove a record for good; what it superseded stays outdated."""
        record = self._of(id, user_id)
        self._check_version(record, if_version)
        self._remove(record)

    def delete_all(self, user_id: str, *, scope: str | None = None, tag: str | Sequence[str] | None = None) -> int:
        """Remove every record that the filters select and return how many there were."""
        selection = Selection.of(user_id, scope, tag)
        doomed = [record for record in self.records.values() if selection.takes(record)]
        began = len(self.writes)
        for record in doomed:
            self._remove(record)
        self.were_one_call(began)
        return len(doomed)

    def restore(self, records: Iterable[MemoryRecord]) -> list[RestoreOutcome]:
        """Write records as they are: what the user has already stays, what is another user's is refused."""
        outcomes: list[RestoreOutcome] = []
        began = len(self.writes)
        for record in records:
            known = self.records.get(record.id)
            taken = record.key is not None and self._by_key(record.user_id, record.key) is not None
            if known is not None:
                outcome = "exists" if known["user_id"] == record.user_id else "refused"
            else:
                outcome = "refused" if taken or record.id in record.supersedes else "restored"
            if outcome == "restored":
                self._bring_back(record)
            outcomes.append(RestoreOutcome(id=record.id, user_id=record.user_id, outcome=outcome))
        self.were_one_call(began)
        return outcomes

    def load(self) -> None:
        """Go on as a store that was empty and into which a snapshot of this one was loaded: each record is written."""
        began = len(self.writes)
        for record in self.records.values():
            self._stir([record["id"]])
            self.writes.append(Deed("add", record["user_id"], record["id"], record["scope"]))
        self.were_one_call(began)

    def were_one_call(self, began: int) -> None:
        """Note that all writes from this one on were one call, within which an audit log has no order."""
        self.writes[began:] = [deed._replace(call=began) for deed in self.writes[began:]]

    # Reading

    def get(self, id: str | None = None, *, user_id: str | None = None, key: str | None = None) -> str:
        """Return the id of the record named, by its id or by its user's own key; another user's is not found."""
        if key is None:
            limits.check_text(id, limits.ID_LENGTH, "id")
            return str(self._of(str(id), user_id)["id"])
        limits.CHECKS["key"](key)
        record = self._by_key(str(user_id), key)
        if record is None:
            raise NotFoundError("no record has that key")
        return str(record["id"])

    def list(
        self,
        user_id: str,
        *,
        scope: str | None = None,
        tag: str | Sequence[str] | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        as_of: datetime | None = None,
    ) -> list[str]:
        """Return the ids of everything selected, newest first; pages are slices of this."""
        selection = Selection.of(user_id, scope, tag, since, until)
        moment = None if as_of is None else limits.moment(as_of, "as_of")
        chosen = [record for record in self.records.values() if selection.takes(record)]
        if moment is not None:
            chosen = [record for record in chosen if self.is_current(record, moment)]
        chosen.sort(key=lambda record: (record["created_at"], record["id"]), reverse=True)
        return [record["id"] for record in chosen]

    def scopes(self, user_id: str, *, prefix: str | None = None, depth: int | None = None) -> Sequence[ScopeCount]:
        """Return the scopes in use, in order, each with its number of records; deeper ones count at `depth`."""
        node = None if prefix is None else node_of(prefix)
        counts: dict[str, int] = {}
        for record in self.records.values():
            scope = record["scope"]
            if record["user_id"] == user_id and scope is not None and (node is None or is_within(scope, node)):
                cut = "/".join(scope.split("/")[:depth])
                counts[cut] = counts.get(cut, 0) + 1
        return [ScopeCount(scope=scope, records=counts[scope]) for scope in sorted(counts)]

    def users(self) -> set[str]:
        """Return the users that have records."""
        return {record["user_id"] for record in self.records.values()}

    def is_current(self, record: Stored, moment: datetime) -> bool:
        """Whether a record holds at a moment: it has begun, has not ended, and nothing has taken over from it."""
        begins = record["valid_from"] or self.handovers.begun(record["id"])
        ends, handed_over = record["valid_to"], self.handovers.ended(record["id"])
        return (
            (begins is None or begins <= moment)
            and (ends is None or moment < ends)
            and (handed_over is None or moment < handed_over)
        )

    def record(self, id: str) -> MemoryRecord:
        """Return a record as every verb must show it."""
        return MemoryRecord(**self.records[id], superseded_by=self.handovers.successor(id))

    def see(self, answer: MemoryRecord) -> None:
        """Take over from an answer what a write to another record changed in this one."""
        if answer.id in self.stirred and answer.id in self.records:
            names = self.stirred.pop(answer.id)
            self.records[answer.id].update({name: getattr(answer, name, None) for name in names})

    # What the verbs share

    def _of(self, id: str, user_id: str | None) -> Stored:
        limits.check_text(id, limits.ID_LENGTH, "id")
        if user_id is not None:
            limits.CHECKS["user_id"](user_id)
        record = self.records.get(id)
        if record is None or user_id not in (None, record["user_id"]):
            raise NotFoundError("no such memory")
        return record

    def _by_key(self, user_id: str, key: str) -> Stored | None:
        named = (record for record in self.records.values() if (record["user_id"], record["key"]) == (user_id, key))
        return next(named, None)

    def _twins(self, fields: Stored) -> Sequence[str]:
        """Return the current records of the same user and scope that say the same, newest first."""
        now, said = datetime.now(UTC), plain(fields["content"])
        ids = self.list(fields["user_id"], as_of=now)
        twins = (self.records[id] for id in ids)
        return [r["id"] for r in twins if r["scope"] == fields["scope"] and plain(r["content"]) == said]

    def _check_key(self, fields: Stored) -> None:
        if fields["key"] is not None and self._by_key(fields["user_id"], fields["key"]) is not None:
            raise ConflictError("another record of the user has that key")

    def _check_predecessors(self, user_id: str, ids: Iterable[str]) -> None:
        for id in ids:
            self._of(id, user_id)

    def _check_version(self, record: Stored, wanted: str | None) -> None:
        if wanted is not None and (wanted != record["version"] or record["id"] in self.stirred):
            raise ConflictError("the record has another version")

    def _check_state(self, known: Stored | None, wanted: str | None) -> None:
        if wanted == "absent":
            if known is not None:
                raise ConflictError("a record has that key")
        elif wanted is not None:
            if known is None:
                raise ConflictError("no record has that key, so none has that version")
            self._check_version(known, wanted)

    def _take_over(self, record: Stored, ids: Iterable[str], now: datetime) -> None:
        for old in ids:
            self.handovers.write(old, record["id"], record["valid_from"], now)
            self._stir([old])

    def _stir(self, ids: Iterable[str]) -> None:
        self.stirred.update(dict.fromkeys(ids, ("version", "updated_at")))

    def _remove(self, record: Stored) -> None:
        del self.records[record["id"]]
        self.stirred.pop(record["id"], None)
        self.deleted.add(record["id"])
        if not self._keys_outlive:
            self._used = {key: used for key, used in self._used.items() if used[1] != record["id"]}
        self._wrote("delete", record)

    def _bring_back(self, record: MemoryRecord) -> None:
        fields = {name: getattr(record, name) for name in type(record).model_fields if name != "superseded_by"}
        self.records[record.id] = {**fields, **record.extensions}
        self.stirred[record.id] = ("version",)
        self.writes.append(Deed("add", record.user_id, record.id, record.scope))

    def _wrote(self, verb: str, record: Stored, app: str | None = None) -> None:
        if verb != "delete":
            self.latest = max(self.latest, record["updated_at"] or record["created_at"])
        self.writes.append(Deed(verb, record["user_id"], record["id"], record["scope"], app=app, call=len(self.writes)))


def _app(fields: Stored) -> str | None:
    """Return the app that an input names as its source."""
    return fields["source"].app if fields["source"] else None


def _check_not_itself(id: Any, supersedes: Iterable[str]) -> None:
    if id in supersedes:
        raise InvalidRequestError("a record cannot supersede itself")


def _check_unused(used: Stored) -> None:
    if used:
        raise ConflictError("the idempotency key was used for another input, or for what was deleted")


def _decided(record: MemoryRecord | None, names: Sequence[str]) -> Stored:
    """Return what the store decided; where it refused the write, something that nobody will take for an answer."""
    if record is None:
        record = MemoryRecord(id="never-written", content="-", user_id="-", created_at=datetime.max.replace(tzinfo=UTC))
    return {name: getattr(record, name, None) for name in names}
