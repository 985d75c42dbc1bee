"""Writing a history: steps at random, of the kinds that a theme is about, within what the provider declares."""

from __future__ import annotations

from typing import Any

from openproto_conformance.histories import values
from openproto_conformance.histories.arguments import Arguments
from openproto_conformance.histories.steps import Copies, History, Made, Step, User, VersionOf, made_of

READ_BACK_EVERY = 12
ASKED_AGAIN = 4
"""Idempotency keys that are used once more at the end, each with an input that is nearly the first."""


class Author(Arguments):
    """Writes one history."""

    def write(self, length: int) -> History:
        """Return a history of about `length` steps, read back now and then and at its end."""
        kinds = {kind: weight for kind, weight in self.theme.steps.items() if self.has(kind)}
        if self.theme.crowd:
            crowd = [{"content": f"one of many, number {n}", "user_id": User(0)} for n in range(self.theme.crowd)]
            self._append("add_many", {"items": crowd})
        for _ in range(3):
            self._append("add", self.add())
        for n in range(length - 3):
            kind = self.random.choices(tuple(kinds), tuple(kinds.values()))[0]
            getattr(self, f"_{kind.replace(' ', '_')}", lambda kind=kind: self._append(kind, getattr(self, kind)()))()
            if n % READ_BACK_EVERY == READ_BACK_EVERY - 1:
                self._append("read back", {})
        for used in self.keyed[-ASKED_AGAIN:]:
            self._append("add", self.nearly(used))
            if "supersedes" in used and self.has("update"):
                self._append("update", {"id": made_of(self.steps, used), "supersedes": None})
                self._append("add", dict(used))
        if "version" in self.theme.fields and self.supports("version"):
            self._stale()
        if "restore" in kinds:
            self._append("add", {"content": "changed, deleted, and restored", "user_id": User(0)})
            made, _ = self.made[-1]
            for verb, changes in (("update", {"confidence": 0.5}), ("delete", {})):
                if self.has(verb):
                    self._append(verb, {"id": made, **changes})
            self._append("restore", {"records": Copies(tuple(dict.fromkeys(made for made, _ in self.gone())))})
        self._append("reopen", {})
        if "users" in kinds and "delete_all" in kinds:
            self._append("delete_all", {"user_id": User(self.random.randrange(self.theme.users))})
        for kind in filter(self.has, ("scopes", "users")):
            self._append(kind, getattr(self, kind)())
        if self.has("audit"):
            if "audit" in kinds and self.has("list") and self.capabilities.features.scopes != "none":
                self._append("list", {"user_id": User(0), "scope": values.SCOPES[0], "limit": 50})
            self._append("audit", {"user_id": User(0), "limit": 1000})
        self._append("read back", {})
        return tuple(self.steps)

    # Steps of several calls

    def _stale(self) -> None:
        """Writes of a version that no record has, with the user and without: none of them may happen."""
        updates: list[dict[str, Any]] = [{"content": "never written"}, {"confidence": None}]
        for verb, changes in (*(("update", change) for change in updates), ("delete", {})):
            for named in (True, False) if self.has(verb) else ():
                made, owner = self.any()
                whose = {"user_id": User(owner)} if named else {}
                self._append(verb, {"id": made, "if_version": "stale", **changes, **whose})

    def _add(self) -> None:
        self._append("add", self.add())

    def _reopen(self) -> None:
        self.steps.append(Step(self._number(), "reopen", client=self.random.randrange(self.theme.clients)))

    def _put(self) -> None:
        self._append("put", self.put())

    def _add_many(self) -> None:
        items = [self.add() for _ in range(self.random.choice((1, 3, 6)))]
        if len(items) > 1 and self.some("key", 0.3) and self.supports("key"):
            items[0]["key"] = items[-1]["key"] = f"twice {len(self.steps)}"
        self._append("add_many", {"items": items})

    def _at_once(self) -> None:
        """Different calls at once, none of which changes what another one answers."""
        if self.random.random() < 0.5 or "update" not in self.capabilities.verbs:
            verbs = [verb for verb in ("get", "list", "search", "context", "audit") if self.has(verb)]
            calls = [(verb, getattr(self, verb)()) for verb in self.random.choices(verbs, k=12)]
        else:
            distinct = self.random.sample(self.made, min(len(self.made), 6))
            calls = [
                ("update", {"id": made, "content": f"changed at once {n}"}) for n, (made, _) in enumerate(distinct)
            ]
        parts = [self._step(verb, arguments) for verb, arguments in calls]
        self.steps.append(Step(self._number(), "at once", parts=tuple(parts)))

    def _race(self) -> None:
        """The same call many times at once: one wins, or all are answered alike."""
        made, _ = self.any()
        calls: list[tuple[str, dict[str, Any]]] = [
            ("add", self.add(keyed=False) | {"idempotency_key": f"race {len(self.steps)}"}),
            ("delete", {"id": made}),
        ]
        if self.supports("put"):
            fields = self.put() | {"key": f"race {len(self.steps)}", "if_version": "absent"}
            calls.append(("put", fields))
            known = [step for step in self.steps if step.verb in ("add", "put") and "key" in step.arguments]
            for step in known[-1:]:
                named = {name: step.arguments[name] for name in ("key", "user_id")}
                calls.append(("put", fields | named | {"if_version": VersionOf(Made(step.number))}))
            del fields["if_version"]
            calls.append(("put", fields))
        if self.supports("version") and self.has("update"):
            calls.append(("update", {"id": made, "content": "the winner's", "if_version": VersionOf(made)}))
        verb, arguments = self.random.choice([call for call in calls if self.has(call[0])])
        if verb == "add":
            arguments.pop("supersedes", None)
            arguments.pop("on_duplicate", None)
        parts = tuple(self._step(verb, arguments) for _ in range(8))
        if verb == "update" and self.has("delete"):
            rival = {name: arguments[name] for name in ("id", "if_version")}
            parts = tuple(self._step("delete", rival) if n % 2 else part for n, part in enumerate(parts))
        self.steps.append(Step(self._number(), "race", parts=parts))
        if verb in ("add", "put"):
            self.made.append((Made(self.steps[-1].number), arguments["user_id"].number))

    def _cancelled(self) -> None:
        """A write that is cancelled at one of its suspensions: it happened whole, or not at all."""
        verbs = [verb for verb in ("add", "add", "update", "delete", "put") if self.has(verb)]
        verb = self.random.choice(verbs)
        arguments = getattr(self, verb)()
        arguments.pop("if_version", None)
        arguments.pop("idempotency_key", None)
        part = self._step(verb, arguments)
        number = self._number()
        self.steps.append(Step(number, "cancelled", {"at": self.random.randrange(1, 9)}, parts=(part,)))
        if verb in ("add", "put"):
            self.made.append((Made(number), arguments["user_id"].number))

    def _append(self, verb: str, arguments: dict[str, Any]) -> None:
        step = self._step(verb, arguments)
        self.steps.append(step)
        if verb == "add_many":
            self.made += [(Made(step.number, n), item["user_id"].number) for n, item in enumerate(arguments["items"])]
        elif verb in ("add", "put"):
            self.made.append((Made(step.number), arguments["user_id"].number))

    def _step(self, verb: str, arguments: dict[str, Any]) -> Step:
        return Step(self._number(), verb, arguments, self.random.randrange(self.theme.clients))

    def _number(self) -> int:
        return len(self.steps) + 1
