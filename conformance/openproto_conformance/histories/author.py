"""Writing a history: steps at random, of the kinds that a theme is about, within what the provider declares."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Any, TypeAlias

from openproto import Capabilities
from openproto_conformance.histories import values
from openproto_conformance.histories.steps import Copies, History, Made, Step, User, VersionOf
from openproto_conformance.histories.theme import Theme

READ_BACK_EVERY = 12
ASKED_AGAIN = 4
"""Idempotency keys that are used once more at the end, each with an input that is nearly the first."""
Several: TypeAlias = list[Made]

_NEEDS = {"put": "put", "scopes": "scopes", "users": "users", "restore": "restore"}
_VERBS = {
    "add_many": "add",
    "put": "add",
    "delete_all": "delete",
    "scopes": "list",
    "users": "list",
    "restore": "add",
    "race": "add",
    "at once": "add",
    "cancelled": "add",
}


@dataclass
class Author:
    """Writes one history; it knows which records a step would make, and nothing of what a store answers."""

    random: Random
    capabilities: Capabilities
    theme: Theme
    made: list[tuple[Made, int]] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    keyed: list[dict[str, Any]] = field(default_factory=list)

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
        if "version" in self.theme.fields and self.supports("version"):
            self._stale()
        self._append("reopen", {})
        for kind in filter(self.has, ("scopes", "users")):
            self._append(kind, getattr(self, kind)())
        if self.has("audit"):
            self._append("audit", {"user_id": User(0), "limit": 1000})
        self._append("read back", {})
        return tuple(self.steps)

    def has(self, kind: str) -> bool:
        """Whether the provider declares what a step needs."""
        support = self.capabilities.x_openproto.support
        if kind in _NEEDS and support.get(_NEEDS[kind], "none") == "none":
            return False
        verb = _VERBS.get(kind, kind)
        return verb == "reopen" or verb in self.capabilities.verbs

    def supports(self, operation: str) -> bool:
        """Whether the provider has an operation beyond its verbs."""
        return self.capabilities.x_openproto.support.get(operation, "none") != "none"

    # Arguments

    def add(self, *, keyed: bool = True, user: int | None = None) -> dict[str, Any]:
        """Return the arguments of an `add`."""
        if keyed and self.keyed and self.some("idempotency", 0.4):
            return self.repeated()
        user = self.user() if user is None else user
        longest = min(self.capabilities.features.max_content_length or values.LONG[-1], 100_000)
        fields = {"content": values.content(self.random, longest, long=self.theme.long), "user_id": User(user)}
        fields |= self.fields()
        if keyed and self.some("idempotency", 0.4):
            fields["idempotency_key"] = self.random.choice(values.IDEMPOTENCY_KEYS)
            if not any(
                used["user_id"] == User(user) and used["idempotency_key"] == fields["idempotency_key"]
                for used in self.keyed
            ):
                self.keyed.append(fields)
        if self.some("supersedes", 0.4) and (old := self.of(user)):
            fields["supersedes"] = self.random.sample(old, min(len(old), self.random.choice((1, 1, 2))))
        if self.some("duplicates", 0.8) and self.supports("on_duplicate"):
            fields["content"] = self.random.choice(values.SAME)
            fields["on_duplicate"] = self.random.choice(("keep", "skip", "supersede"))
        if keyed and self.some("key", 0.5) and self.supports("key"):
            fields["key"] = values.key(self.random)
        return fields

    def repeated(self) -> dict[str, Any]:
        """Return an earlier `add` under its key, the very same or with one field that is another."""
        fields = self.random.choice(self.keyed)
        return self.nearly(fields) if self.random.random() < 0.6 else dict(fields)

    def nearly(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments of an `add` with one field less, or with another confidence."""
        optional = [name for name in fields if name not in ("content", "user_id", "idempotency_key")]
        if not optional or self.random.random() < 0.3:
            return fields | {"confidence": self.random.choice(values.CONFIDENCES)}
        left_out = "supersedes" if "supersedes" in optional else self.random.choice(optional)
        return {name: value for name, value in fields.items() if name != left_out}

    def fields(self) -> dict[str, Any]:
        """Return some of the optional fields that callers may write when they like."""
        fields: dict[str, Any] = {}
        if self.some("scope", 0.5) and self.capabilities.features.scopes != "none":
            fields["scope"] = values.scope(self.random)
        if self.some("tags", 0.5):
            fields["tags"] = values.tags(self.random)
        if self.some("source", 0.4):
            fields["source"] = self.random.choice(values.SOURCES)
        if self.some("confidence", 0.4):
            fields["confidence"] = self.random.choice(values.CONFIDENCES)
        if self.some("validity", 0.4):
            fields |= values.interval(self.random)
        if self.some("extensions", 0.4):
            fields |= values.extensions(self.random)
        return fields

    def get(self) -> dict[str, Any]:
        """By id or by key, with the right user, another one, or none."""
        made, user = self.any()
        if self.some("key", 0.5) and self.supports("key"):
            return {"user_id": User(self.user()), "key": values.key(self.random)}
        change = self.random.choice(("case", "longer", "blank")) if self.random.random() < 0.3 else ""
        arguments: dict[str, Any] = {"id": Made(made.step, made.item, change)}
        return arguments | self.whose(user)

    def update(self) -> dict[str, Any]:
        """Change some fields to new values and clear others."""
        made, user = self.any()
        changes: dict[str, Any] = {"id": made} | self.whose(user)
        if self.random.random() < 0.65:
            changes["content"] = self.add()["content"]
        for name, value in self.fields().items():
            if name in ("scope", "tags", "confidence", "valid_to", "source") or name.startswith("x-"):
                cleared: Any = self.random.choice((None, [])) if name == "tags" else None
                changes[name] = cleared if self.random.random() < 0.25 else value
        if self.some("supersedes", 0.45):
            old = [other for other in self.of(user) if other != made]
            clears = self.random.random() < 0.3 or not old
            changes["supersedes"] = None if clears else [self.random.choice(old)]
        if self.some("version", 0.5) and self.supports("version"):
            changes["if_version"] = VersionOf(made) if self.random.random() < 0.7 else "stale"
        return changes

    def put(self) -> dict[str, Any]:
        """Create or replace the record of one of a few keys."""
        arguments = self.add(keyed=False)
        arguments.pop("on_duplicate", None)
        bearing = [step for step in self.steps if step.verb in ("add", "put") and "key" in step.arguments]
        mine = [step for step in bearing if step.arguments["user_id"] == arguments["user_id"]]
        earlier = self.random.choice([*mine, *mine, None])
        arguments["key"] = values.key(self.random) if earlier is None else earlier.arguments["key"]
        if earlier is not None and self.random.random() < 0.25:
            arguments["content"] = earlier.arguments["content"]  # and other fields
        if self.random.random() < 0.4:
            known = [] if earlier is None else 3 * [VersionOf(Made(earlier.number))]
            arguments["if_version"] = self.random.choice(("absent", "stale", VersionOf(self.any()[0]), *known))
        return arguments

    def delete(self) -> dict[str, Any]:
        """By id, with the right user, another one, or none."""
        made, user = self.any()
        arguments: dict[str, Any] = {"id": made} | self.whose(user)
        if self.some("version", 0.5) and self.supports("version"):
            arguments["if_version"] = VersionOf(made) if self.random.random() < 0.6 else "stale"
        return arguments

    def delete_all(self) -> dict[str, Any]:
        """Everything that one or two filters select; seldom everything of a user."""
        filters = self.filters(likely=0.55)
        return {"user_id": User(self.user())} | (filters or {"tag": "no such tag"})

    def list(self) -> dict[str, Any]:
        """With any filters at once; all pages, of any size."""
        arguments = {"user_id": User(self.user())} | self.filters() | self.moments()
        if "bounds" in self.theme.filters:
            made = self.any()[0]
            for name in ("since", "until"):
                if self.random.random() < 0.4:
                    arguments[name] = self.random.choice((made, self.any()[0], values.moment(self.random)))
        sizes = (3, 7, 20, 50, 500) if self.theme.crowd else (1, 2, 3, 7, 50, 500)
        return arguments | {"limit": self.random.choice(sizes)}

    def search(self) -> dict[str, Any]:
        """For a word that some of the memories have, under any filters."""
        arguments = {"query": self.query(), "user_id": User(self.user())} | self.narrowed()
        if self.random.random() < 0.3:
            arguments["min_score"] = self.random.choice((0.0, 0.2, 0.5, 1.0, 1.0))
        return arguments | {"limit": self.random.choice((1, 3, 100, 100)), "explain": len(self.steps) % 2 == 0}

    def context(self) -> dict[str, Any]:
        """As `search`, within any budget."""
        arguments = {"query": self.query(), "user_id": User(self.user())} | self.narrowed()
        if self.random.random() < 0.3:
            arguments["relevant_only"] = True
        return arguments | {"token_budget": self.random.choice((1, 20, 60, 200, 5_000, 200_000))}

    def scopes(self) -> dict[str, Any]:
        """Of a prefix or not, cut to a depth or not."""
        arguments: dict[str, Any] = {"user_id": User(self.user())}
        if self.random.random() < 0.7:
            arguments["prefix"] = values.scope(self.random) + self.random.choice(values.FILTER_ENDINGS)
        if self.random.random() < 0.5:
            arguments["depth"] = self.random.choice((1, 2, 3))
        return arguments

    def users(self) -> dict[str, Any]:
        """Every user that has records, on pages of a few where users are what the theme is about, or of many."""
        sizes = (5, 9, 50) if "users" in self.theme.steps else (50, 100, 500)
        return {"limit": self.random.choice(sizes)}

    def restore(self) -> dict[str, Any]:
        """A few records as they were last seen, deleted or not."""
        gone = [step.arguments["id"] for step in self.steps if step.verb == "delete"]
        chosen = [self.any()[0] for _ in range(self.random.choice((1, 2, 4)))]
        chosen += self.random.sample(gone, min(len(gone), self.random.randrange(3)))
        return {"records": Copies(tuple(dict.fromkeys(chosen)))}

    def audit(self) -> dict[str, Any]:
        """Of a user, of one memory or of all, many or few."""
        arguments: dict[str, Any] = {"user_id": User(self.user()), "limit": self.random.choice((1, 3, 1000, 1000))}
        if self.random.random() < 0.4:
            arguments["memory_id"], owner = self.any()
            arguments["user_id"] = User(owner if self.random.random() < 0.8 else self.user())
        return arguments

    # Steps of several calls

    def _stale(self) -> None:
        """Writes of a version that no record has, with the user and without: none of them may happen."""
        for verb, changes in (("update", {"content": "never written"}), ("delete", {})):
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
        self._append("add_many", {"items": [self.add() for _ in range(self.random.choice((1, 3, 6)))]})

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
        if self.supports("version") and self.has("update"):
            calls.append(("update", {"id": made, "content": "the winner's", "if_version": VersionOf(made)}))
        verb, arguments = self.random.choice([call for call in calls if self.has(call[0])])
        if verb == "add":
            arguments.pop("supersedes", None)
            arguments.pop("on_duplicate", None)
        parts = tuple(self._step(verb, arguments) for _ in range(8))
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

    # Choices

    def some(self, name: str, chance: float) -> bool:
        """Whether a field that the theme is about stands in this step; of few fields, each more often."""
        chance = max(chance, 1.6 / len(self.theme.fields))
        if name == "supersedes" and not self.capabilities.features.supports_supersession:
            return False
        return name in self.theme.fields and self.random.random() < chance

    def user(self) -> int:
        """Return one of the users, mostly the first one, but where they are what the theme is about."""
        if self.theme.unicode_users and self.theme.users > 3:
            return self.random.randrange(self.theme.users)
        return self.random.choice((0, 0, self.random.randrange(self.theme.users)))

    def of(self, user: int) -> Several:
        """Return what was made for a user, or now and then for another one."""
        return [made for made, owner in self.made if owner == user or self.random.random() < 0.05]

    def any(self) -> tuple[Made, int]:
        """Return a record, newer ones more often, and its user."""
        return self.made[-1 - int(abs(self.random.gauss(0, 1)) * len(self.made) / 2) % len(self.made)]

    def whose(self, owner: int) -> dict[str, Any]:
        """Return `user_id` as callers give it: not at all, rightly, or wrongly."""
        choice = self.random.random()
        if choice < 0.4:
            return {}
        rightly = 0.7 if self.theme.unicode_users else 0.85
        return {"user_id": User(owner if choice < rightly else self.user())}

    def query(self) -> str:
        """Return a question, often for the word that most of the memories have."""
        if self.random.random() < 0.35:
            return "number"
        return self.random.choice((*values.WORDS, *values.WORDS, *values.TEXTS))

    def filters(self, likely: float = 0.4) -> dict[str, Any]:
        """Return a scope, tags, both, or neither."""
        filters: dict[str, Any] = {}
        known = self.random.choice([step.arguments for step in self.steps if step.verb in ("add", "put")])
        scopes = self.capabilities.features.scopes != "none"
        if scopes and "scope" in self.theme.filters and self.random.random() < likely:
            scope = known.get("scope") if self.random.random() < 0.5 else None
            filters["scope"] = (scope or values.scope(self.random)) + self.random.choice(values.FILTER_ENDINGS)
            if self.random.random() < 0.1:
                filters["scope"] = "*"
        if "tag" in self.theme.filters and self.random.random() < likely:
            tags = known.get("tags") if self.random.random() < 0.5 else None
            tags = list(dict.fromkeys(tags or values.TAGS[: values.FEW]))
            filters["tag"] = self.random.choice(tags)
            if len(tags) > 1 and self.random.random() < 0.5:
                filters["tag"] = self.random.sample(tags, 2)
        return filters

    def narrowed(self) -> dict[str, Any]:
        """Return filters and a moment, or half of the time nothing: a search must find something to be judged by."""
        return self.filters() | self.moments() if self.random.random() < 0.5 else {}

    def moments(self) -> dict[str, Any]:
        """Return `as_of`, or nothing."""
        if self.capabilities.features.temporal and self.random.random() < 0.4:
            return {"as_of": values.moment(self.random)}
        return {}

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
