"""The arguments of a history's calls, at random: of what a theme is about, within what the provider declares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, TypeAlias

from openproto import Capabilities
from openproto_conformance.histories import values
from openproto_conformance.histories.steps import Copies, Made, Step, User, VersionOf
from openproto_conformance.histories.theme import Theme, declares

Several: TypeAlias = list[Made]


@dataclass
class Arguments:
    """Makes arguments; it knows which records the steps so far would make, and nothing of what a store answers."""

    random: Random
    capabilities: Capabilities
    theme: Theme
    made: list[tuple[Made, int]] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    keyed: list[dict[str, Any]] = field(default_factory=list)

    def has(self, kind: str) -> bool:
        """Whether the provider declares what a step needs."""
        return declares(self.capabilities, kind)

    def supports(self, operation: str) -> bool:
        """Whether the provider has an operation beyond its verbs."""
        return self.capabilities.x_openproto.support.get(operation, "none") != "none"

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
        if self.some("supersedes", 0.4) and (old := self.of(user)[: self.random.choice((3, None))]):
            some = self.random.sample(old, min(len(old), self.random.choice((1, 1, 2))))
            fields["supersedes"] = [*some, *self.unknown()]
        if self.some("duplicates", 0.95) and self.supports("on_duplicate"):
            keyed = keyed and self.random.random() < 0.5
            self._say_again(fields)
        if keyed and self.some("key", 0.5) and self.supports("key"):
            fields["key"] = values.key(self.random)
        return fields

    def _say_again(self, fields: dict[str, Any]) -> None:
        """Let an `add` say what may have been said, half of the time just what an earlier one said and no more."""
        fields["content"] = self.random.choice(values.SAME)
        fields["on_duplicate"] = self.random.choice(("keep", "skip", "supersede"))
        said = [step.arguments for step in self.steps if step.arguments.get("content") in values.SAME]
        if "scope" in fields:
            fields["scope"] = self.random.choice(values.SCOPES[:2])
        if said and self.random.random() < 0.5:
            for name in ("scope", "valid_from", "valid_to", "supersedes"):
                fields.pop(name, None)
            earlier = self.random.choice(said)
            fields |= {name: earlier[name] for name in ("content", "user_id", "scope") if name in earlier}
            if self.random.random() < 0.2 and "scope" in fields:
                fields["scope"] = fields["scope"].split("/")[0]

    def repeated(self) -> dict[str, Any]:
        """Return an earlier `add` under its key, the very same or with one field that is another."""
        fields = self.random.choice(self.keyed)
        return self.nearly(fields) if self.random.random() < 0.6 else dict(fields)

    def nearly(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments of an `add` with one field less, or with a field of another value."""
        optional = [name for name in fields if name not in ("content", "user_id", "idempotency_key")]
        if not optional or self.random.random() < 0.3:
            return fields | {"confidence": self.random.choice(values.CONFIDENCES)}
        changed = "supersedes" if "supersedes" in optional else self.random.choice(optional)
        if changed not in ("supersedes", "on_duplicate", "confidence") and self.random.random() < 0.5:
            return fields | {changed: values.another(fields[changed])}
        return {name: value for name, value in fields.items() if name != changed}

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
            changes["content"] = self.add(keyed=False)["content"]
        for name, value in self.fields().items():
            if name in ("scope", "tags", "confidence", "valid_to", "source") or name.startswith("x-"):
                cleared: Any = self.random.choice((None, [])) if name == "tags" else None
                changes[name] = cleared if self.random.random() < 0.25 else value
        if self.some("supersedes", 0.45):
            old = [other for other in self.of(user) if other != made]
            clears = self.random.random() < 0.3 or not old
            changes["supersedes"] = None if clears else [self.random.choice(old), *self.unknown()]
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
        again = () if earlier is None else [name for name in ("content", "supersedes") if self.random.random() < 0.25]
        arguments |= {name: earlier.arguments[name] for name in again if earlier and name in earlier.arguments}
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
            scope = values.scope(self.random).split("/")
            node = "/".join(scope[: self.random.choice((1, None))])
            arguments["prefix"] = node + self.random.choice(values.FILTER_ENDINGS)
        if self.random.random() < 0.5:
            arguments["depth"] = self.random.choice((1, 2, 3))
        return arguments

    def users(self) -> dict[str, Any]:
        """Every user that has records, on pages of a few where users are what the theme is about, or of many."""
        sizes = (5, 9, 50) if "users" in self.theme.steps else (50, 100, 500)
        return {"limit": self.random.choice(sizes)}

    def restore(self) -> dict[str, Any]:
        """A few records as they were last seen, deleted or not."""
        gone = [made for made, _ in self.gone()]
        chosen = [self.any()[0] for _ in range(self.random.choice((1, 2, 4)))]
        chosen += self.random.sample(gone, min(len(gone), self.random.randrange(3)))
        more = self.random.choice(({}, {}, {"content": "another text"}, {"user_id": "another"}))
        return {"records": Copies(tuple(dict.fromkeys(chosen)), more)}

    def audit(self) -> dict[str, Any]:
        """Of a user, of one memory or of all, many or few."""
        arguments: dict[str, Any] = {"user_id": User(self.user()), "limit": self.random.choice((1, 3, 1000, 1000))}
        if self.random.random() < 0.4:
            arguments["memory_id"], owner = self.any()
            if (gone := self.gone()) and self.random.random() < 0.4:
                arguments["memory_id"], owner = self.random.choice(gone)
            arguments["user_id"] = User(owner if self.random.random() < 0.8 else self.user())
        if self.some("source", 0.3):
            arguments["app"] = "notebook"
        return arguments

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
        """Return a record, newer ones more often or what another one superseded, and its user."""
        if self.random.random() < 0.2:
            named = {old: None for step in self.steps for old in step.arguments.get("supersedes") or ()}
            if superseded := [each for each in self.made if each[0] in named]:
                return self.random.choice(superseded)
        return self.made[-1 - int(abs(self.random.gauss(0, 1)) * len(self.made) / 2) % len(self.made)]

    def gone(self) -> Sequence[tuple[Made, int]]:
        """Return the records that were to be deleted, and their users."""
        deleted = {step.arguments["id"]: None for step in self.steps if step.verb == "delete"}
        return [(made, user) for made, user in self.made if made in deleted]

    def unknown(self) -> Sequence[str]:
        """Return now and then an id that no record has, behind those that are to be superseded."""
        return ["no-such-id"] if self.random.random() < 0.1 else []

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
            if "supersedes" in self.theme.fields and self.random.random() < 0.3:
                return {"as_of": self.any()[0]}  # between two writes
            return {"as_of": values.moment(self.random)}
        return {}
