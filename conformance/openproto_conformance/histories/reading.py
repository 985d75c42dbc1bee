"""Comparing what the reading verbs answer with the model: page by page, field by field."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from openproto import AsyncMemory, MemoryRecord, OpenProtoError, SearchResult
from openproto.context import estimate_tokens
from openproto_conformance.bench import Bench
from openproto_conformance.histories import compare
from openproto_conformance.histories.values import WORDS
from openproto_conformance.model import Model, ranking
from openproto_conformance.model.auditing import Deed
from openproto_conformance.model.selection import node_of

PLAIN_LENGTH = 500
"""A word may be too little to find a text by that is longer."""


class Differs(Exception):
    """Ends the playing of a history: which call, and in what its answer differs."""


class Reader:
    """Reads for the invented users of one history, and holds what comes against one model."""

    def __init__(self, bench: Bench, suffixes: Sequence[str]) -> None:
        self.bench = bench
        support = bench.capabilities.x_openproto.support
        self.model = Model(keys_outlive=support.get("keys_outlive") != "none")
        token = bench.user(str(bench.random.random()))
        self.users = [f"{token}{suffix}" for suffix in suffixes]
        """They differ in their endings alone."""
        self._last_seen: dict[str, MemoryRecord] = {}
        self._reads: list[tuple[AsyncMemory, Deed]] = []
        """Each with the client that asked: another one may not have written it down yet."""
        self._tried = 0
        self._declared = bench.capabilities
        self._own = f"x-{bench.capabilities.provider}"

    async def _compare_list(self, client: AsyncMemory, arguments: dict[str, Any]) -> None:
        arguments = dict(arguments)
        limit, user = arguments.pop("limit"), arguments.pop("user_id")
        what = f"list({names_of({**arguments, 'limit': limit})})"
        wanted = value_of(lambda: self.model.list(user, **arguments))
        got: list[MemoryRecord] = []
        cursor: str | None = None
        for start in range(0, 10_000, limit):
            page = await outcome_of(client.list(user, limit=limit, cursor=cursor, **arguments))
            if (faults := compare.outcome_faults(page, wanted)) is not None:
                return self._differ(what, faults)
            got += page.items
            due = wanted[start : start + limit]
            self._differ(f"{what}, page {start // limit + 1}", compare.ids_faults([r.id for r in page.items], due))
            more = len(wanted) > start + limit
            if more != (page.next_cursor is not None):
                self._differ(
                    what, [f"next_cursor: {'none, and there is more' if more else 'one, and there is no more'}"]
                )
            cursor = page.next_cursor
            if cursor is None:
                break
            if start == 0:
                await self._try_cursor_elsewhere(client, user, cursor, limit, arguments)
        for record in got:
            self._compare(what, record, record.id)
        self._has_read(client, "list", {**arguments, "user_id": user})
        return None

    async def _try_cursor_elsewhere(
        self, client: AsyncMemory, user: str, cursor: str, limit: int, arguments: dict[str, Any]
    ) -> None:
        """A cursor is good for the question that it came from, and for no other."""
        others: list[dict[str, Any]] = [{**arguments, "user_id": other} for other in self.users if other != user][:1]
        tags = arguments.get("tag") or []
        more = [*([tags] if isinstance(tags, str) else tags), "another tag"]
        others.append({**arguments, "user_id": user, "tag": more})
        if self._declared.features.scopes != "none":
            others.append({**arguments, "user_id": user, "scope": "another/scope"})
        if self._declared.features.temporal:
            others.append({**arguments, "user_id": user, "as_of": datetime(1815, 6, 18, tzinfo=UTC)})
        others.append({**arguments, "user_id": user, "since": datetime(1815, 6, 18, tzinfo=UTC)})
        others.append({**arguments, "user_id": user, "until": datetime(2815, 6, 18, tzinfo=UTC)})
        self._tried += 1
        for other in others[self._tried % len(others) :][:2]:
            got = await outcome_of(client.list(limit=limit, cursor=cursor, **other))
            if getattr(got, "code", "an answer") != "invalid_request":
                changed = next(name for name, value in other.items() if arguments.get(name, user) != value)
                self._differ(
                    "list", [f"a cursor of another {changed}: wanted invalid_request, got {type(got).__name__}"]
                )

    async def _compare_search(self, client: AsyncMemory, arguments: dict[str, Any]) -> float | None:
        """Return the best score, where something was found."""
        filters = {name: value for name, value in arguments.items() if name in ("scope", "tag", "as_of")}
        user, limit = arguments["user_id"], arguments["limit"]
        before = datetime.now(UTC)
        got = await outcome_of(client.search(**arguments))
        wanted = value_of(lambda: ranking.eligible(self.model, user, before, **filters))
        what = f"search({names_of(arguments)})"
        if (faults := compare.outcome_faults(got, wanted)) is None:
            declared = self._declared.x_openproto.support.get("explain", "none") != "none"
            explained = declared and arguments.get("explain", False)
            faults = ranking.search_faults(got, wanted, limit, arguments.get("min_score"), explained=explained)
            if not faults and self._declared.features.keyword_search and "min_score" not in arguments:
                faults = self._missed(arguments["query"], [hit.memory.id for hit in got], wanted, limit)
            if not faults and "min_score" in arguments and len(got) < limit:
                faults = await self._left_out(client, arguments, got)
        self._differ(what, faults)
        self._has_read(client, "search", arguments)
        hits = got if isinstance(got, list) else []
        for hit in hits:
            self._compare(what, hit.memory, hit.memory.id)
        return hits[0].score if hits else None

    async def _left_out(self, client: AsyncMemory, arguments: dict[str, Any], found: list[SearchResult]) -> list[str]:
        """Hits that reach `min_score` and are answered without it alone, before as after.

        There are backends whose scores move with what other users write meanwhile.
        """
        every = await client.search(**{**arguments, "min_score": None})
        known = {hit.memory.id for hit in found}
        left = [hit for hit in every if hit.score >= arguments["min_score"] and hit.memory.id not in known]
        if left:
            again = {hit.memory.id for hit in await client.search(**arguments)}
            left = [hit for hit in left if hit.memory.id not in again]
        return [f"left out with {arguments['min_score']} for min_score: {hit.memory.id} of {hit.score}" for hit in left]

    async def _compare_best(self, client: AsyncMemory, arguments: dict[str, Any]) -> None:
        """Ask for several words, of which some memories have more than others, and then for the best of them alone."""
        arguments = {"query": " ".join(("number", *WORDS)), **arguments}
        if (best := await self._compare_search(client, arguments)) is not None:
            await self._compare_search(client, {**arguments, "min_score": best})

    async def _compare_context(self, client: AsyncMemory, arguments: dict[str, Any]) -> None:
        what, arguments = f"context({names_of(arguments)})", dict(arguments)
        query, budget, user = arguments.pop("query"), arguments.pop("token_budget"), arguments.pop("user_id")
        only = arguments.pop("relevant_only", False)
        got = await outcome_of(client.context(query, user, token_budget=budget, relevant_only=only, **arguments))
        now = datetime.now(UTC)
        wanted = value_of(lambda: ranking.eligible(self.model, user, now, **arguments))
        if (faults := compare.outcome_faults(got, wanted)) is None:
            # What fills the budget is listed by the caller's clock, not by the store's.
            listed = self.model.list(user, **{"as_of": now, **arguments})
            allowed = [self.model.record(id) for id in dict.fromkeys([*wanted, *listed])]
            fills = self._declared.x_openproto.support.get("put") is not None and "list" in self._declared.verbs
            due = [record for record in allowed if record.id in wanted and record.id in listed]
            told = due if fills and not only else []
            faults = ranking.context_faults(got, allowed, told, budget, estimate_tokens)
            hits = await client.search(query, user, limit=100, **arguments)
            faults += ranking.filling_faults(got, {hit.memory.id for hit in hits}, allowed, relevant_only=only)
        self._differ(what, faults)

    def _has_read(self, client: AsyncMemory, verb: str, arguments: dict[str, Any]) -> None:
        scope = arguments.get("scope")
        deed = Deed(verb, arguments["user_id"], None, None if scope is None else node_of(scope))
        self._reads.append((client, deed))

    def _missed(self, query: str, found: list[str], allowed: list[str], limit: int) -> list[str]:
        """A memory that holds the very word asked for is found, where there is room for one more."""
        if not query.isascii() or not query.isalpha() or len(found) >= limit:
            return []
        contents = {id: self.model.records[id]["content"] for id in allowed}
        holds = [id for id, content in contents.items() if len(content) < PLAIN_LENGTH and query in content.split()]
        return [f"not found, although it holds the word {query!r}: {id}" for id in holds if id not in found]

    def _compare(self, what: str, got: Any, wanted: Any) -> None:
        faults = compare.outcome_faults(got, wanted)
        if faults is None:
            faults = compare.ids_faults([got.id], [wanted])
            if not faults:
                if self._is_as_before(got):
                    faults.append("version: that of the record before another one superseded it")
                self.model.see(got)
                faults += compare.record_faults(got, self.model.record(got.id), self._own)
                if got.status not in (None, "done"):
                    faults.append(f"status: {got.status!r} of a record that is there")
                self._last_seen[got.id] = got
                if getattr(got, "version", None):
                    self.model.versions.setdefault(got.id, set()).add(got.version)
        self._differ(what, faults)

    def _check_equal(self, what: str, got: Any, wanted: Callable[[], Any]) -> None:
        due = value_of(wanted)
        faults = compare.outcome_faults(got, due)
        if faults is None:
            faults = [] if got == due else [f"the answer: wanted {due}, got {got}"]
        self._differ(what, faults)

    def _is_as_before(self, got: MemoryRecord) -> bool:
        """Whether a record that was superseded since it was last seen has kept its version."""
        before = self._last_seen.get(got.id)
        return (
            before is not None
            and before.superseded_by != got.superseded_by
            and before.version is not None
            and got.version == before.version
        )

    def _differ(self, what: str, faults: Sequence[str]) -> None:
        if faults:
            raise Differs(what, faults)


async def outcome_of(call: Awaitable[Any]) -> Any:
    """Return what a call answers, or the error that it raises."""
    try:
        return await call
    except OpenProtoError as error:
        return error


def value_of(wanted: Callable[[], Any]) -> Any:
    """Return what the model answers, or the error that it raises."""
    try:
        return wanted()
    except OpenProtoError as error:
        return error


def names_of(arguments: dict[str, Any]) -> str:
    """Say which arguments a call had; their values stand in the program."""
    return ", ".join(arguments)
