"""Reading back what a history has stored, through every verb that reads."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from itertools import pairwise, product
from typing import Any

from openproto import AsyncMemory
from openproto_conformance.histories import compare, values
from openproto_conformance.histories.questions import common_filters, nodes_cut_short, telling_filters
from openproto_conformance.histories.reading import Reader, names_of, outcome_of, value_of

GETS_AT_ONCE = 16
MOST_AT_MOMENTS = 2
"""Users whose records of a moment are read back."""
MOST_FILTERED = 2, 1  # in a quick run: most records are the first one's
MOST_HANDOVERS = 12, 5
APART = timedelta(microseconds=100)
FEW = 3
"""Records on a page, so that a filter must hold from the second page on too."""


class ReadBack(Reader):
    """Reads what is new since it last did, or at the end everything."""

    _read_up_to = 0

    async def read_new(self, clients: Sequence[AsyncMemory], number: int) -> None:
        """Read through one client for the users of whom something was written; the ids of it through each."""
        client, written = clients[number % len(clients)], self._written()
        writers = {deed.user_id for deed in self.model.writes[self._read_up_to :]}
        users = [user for user in self.users if user in writers]
        self._read_up_to = len(self.model.writes)
        await self._list_each([client], users, number)
        await self._get_all(clients, client, [id for id in self.model.records if id in written], written)
        await self._search_each(client, users)

    async def read_everything(self, clients: Sequence[AsyncMemory], number: int) -> None:
        """Read for each user through each client, by id, by key, as somebody else, and under the filters that tell."""
        client, written = clients[number % len(clients)], self._written()
        await self._list_each(clients, self.users, number)
        ids = [*self.model.records]
        some = set(ids[:: 1 + len(ids) // GETS_AT_ONCE])
        await self._get_all(clients, client, [id for id in ids if id in written | some], written)
        await self._get_by_key(client)
        await self._get_of_others(client)
        await self._search_each(client, self.users)
        if "list" in self._declared.verbs:
            for user in self.users[: self.bench.size(*MOST_FILTERED)]:
                await self._list_around_handovers(client, user)
                await self._ask_with_filters(client, user, number)
                await self._delete_with_filters(client, user)

    async def _delete_with_filters(self, client: AsyncMemory, user: str) -> None:
        """The last of all, for nothing is to be read any more: of a scope what has two tags, one tag, and any."""
        found = [filters for filters in common_filters(self.model, user) if "scope" in filters]
        both = [filters for filters in found if "tag" in filters]
        asked = [*({**filters, "tag": [filters["tag"], "no such tag"]} for filters in both), *both, *found]
        for filters in asked if "delete" in self._declared.verbs else ():
            got = await outcome_of(client.delete_all(user, **filters))
            self._check_equal(f"delete_all({names_of(filters)})", got, partial(self.model.delete_all, user, **filters))
        if "delete" in self._declared.verbs and found:
            await self._compare_list(client, {"user_id": user, "limit": 500})

    def _written(self) -> set[str]:
        new = self.model.writes[self._read_up_to :]
        return {deed.memory_id for deed in new if deed.memory_id is not None} | self.model.stirred.keys()

    async def _list_each(self, readers: Sequence[AsyncMemory], users: Sequence[str], number: int) -> None:
        if "list" not in self._declared.verbs:
            return
        for reader, user in product(readers, users):
            await self._compare_list(reader, {"user_id": user, "limit": 500})
        for n, user in enumerate(users[:MOST_AT_MOMENTS] if self._declared.features.temporal else ()):
            moments = [values.MOMENTS[(number + n) % len(values.MOMENTS)]]
            # Of several handovers the earliest counts, and of what was released none does: the last moment before each.
            handed = [when for old, when in self.model.handovers.dated() if self._owner(old) == user]
            moments += [handed[0 if number % 2 else number % len(handed)] - values.TICK] if handed else []
            for moment in moments:
                await self._compare_list(readers[0], {"user_id": user, "limit": 500, "as_of": moment})

    async def _list_around_handovers(self, client: AsyncMemory, user: str) -> None:
        """Between the writes before and after each: what was current then must not have changed since."""
        handed = [when for old, when in self.model.handovers.moments() if self._owner(old) == user]
        mine = [record for record in self.model.records.values() if record["user_id"] == user]
        writes = sorted({*handed, *(record["updated_at"] or record["created_at"] for record in mine)})
        between = [before + (after - before) / 2 for before, after in pairwise(writes) if after - before > APART]
        for when in handed[: self.bench.size(*MOST_HANDOVERS)] if self._declared.features.temporal else ():
            for moment in [*[m for m in between if m < when][-1:], *[m for m in between if m > when][:1]]:
                await self._compare_list(client, {"user_id": user, "limit": 500, "as_of": moment})

    def _owner(self, id: str) -> object:
        return self.model.records.get(id, {}).get("user_id")

    async def _get_all(
        self, clients: Sequence[AsyncMemory], client: AsyncMemory, ids: Sequence[str], written: set[str]
    ) -> None:
        asked = [{"id": id} for id in (*ids, *sorted(written & self.model.deleted))]
        each = self.bench.size(1, 1 + len(asked) // GETS_AT_ONCE)  # quick: some through each client, all through one
        await asyncio.gather(*(self._get_each(c, asked if c is client else asked[::each]) for c in clients))

    async def _get_by_key(self, client: AsyncMemory) -> None:
        if self._declared.x_openproto.support.get("key", "none") != "none":
            borne = [record for record in self.model.records.values() if record["key"] is not None]
            await self._get_each(client, [{"user_id": record["user_id"], "key": record["key"]} for record in borne])

    async def _get_of_others(self, client: AsyncMemory) -> None:
        """One record of each user, asked for as each of the others."""
        begun = sorted(self.model.records.values(), key=lambda record: record["valid_from"] is not None)
        one_of_each = {record["user_id"]: record["id"] for record in begun}
        pairs = product(one_of_each.items(), self.users)
        foreign = [{"id": id, "user_id": user} for (owner, id), user in pairs if user != owner]
        await self._get_each(client, foreign)
        await self._change_of_others(client, foreign[:2])

    async def _change_of_others(self, client: AsyncMemory, foreign: Sequence[dict[str, Any]]) -> None:
        """What else is wrong with a change of another user's record is not told: it is as unknown as a missing one."""
        has_versions = self._declared.x_openproto.support.get("version", "none") != "none"
        stale = {"if_version": "stale"} if has_versions else {}
        earliest = {"valid_to": values.MOMENTS[0]} if self._declared.features.temporal else {"content": "taken over"}
        for named, (verb, changes) in product(foreign, (("update", earliest), ("delete", {}))):
            if verb in self._declared.verbs:
                arguments = {**named, **stale, **changes}
                got = await outcome_of(getattr(client, verb)(**arguments))
                wanted = value_of(partial(getattr(self.model, verb), **arguments))
                self._differ(f"{verb}({names_of(arguments)})", compare.outcome_faults(got, wanted) or [])

    async def _get_each(self, client: AsyncMemory, asked: Sequence[dict[str, Any]]) -> None:
        for some in (asked[start : start + GETS_AT_ONCE] for start in range(0, len(asked), GETS_AT_ONCE)):
            answers = await asyncio.gather(*(outcome_of(client.get(**arguments)) for arguments in some))
            for arguments, got in zip(some, answers, strict=True):
                self._compare(f"get({names_of(arguments)})", got, value_of(partial(self.model.get, **arguments)))

    async def _search_each(self, client: AsyncMemory, users: Sequence[str]) -> None:
        for user in users if "search" in self._declared.verbs else ():
            await self._compare_search(client, {"query": "number", "user_id": user, "limit": 100})

    async def _ask_with_filters(self, client: AsyncMemory, user: str, start: int) -> None:
        for prefix in nodes_cut_short(self.model, user, self._declared):
            await self._compare_list(client, {"user_id": user, "limit": FEW, "scope": prefix})
            if self._declared.x_openproto.support.get("scopes", "none") != "none":
                got = await outcome_of(client.scopes(user, prefix=prefix))
                self._check_equal("scopes(prefix)", got, partial(self.model.scopes, user, prefix=prefix))
        telling = [*telling_filters(self.model, user, self._declared, start)]
        for number, filters in enumerate((*telling, *common_filters(self.model, user)), start):
            await self._compare_list(client, {"user_id": user, "limit": FEW, **filters})
            if "search" in self._declared.verbs and "since" not in filters:
                # One is enough to see a filter that comes after the limit.
                if "as_of" in filters or filters not in telling:
                    await self._compare_search(client, {"query": "number", "user_id": user, "limit": 1, **filters})
                most = {"user_id": user, "limit": 100, **filters}
                in_turn = self.bench.size(2, number % 2)  # a quick run asks one of the two
                if in_turn != 1:
                    await self._compare_best(client, most)
                if in_turn != 0 and "context" in self._declared.verbs:
                    question = {"query": "number", "user_id": user, "token_budget": 5_000}
                    await self._compare_context(client, {**question, **filters})
                elif in_turn != 0:
                    await self._compare_search(client, {"query": "number", **most})
