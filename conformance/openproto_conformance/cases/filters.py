"""Scope and tag filters: what a filter selects, to the letter, in every verb that takes one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta

from openproto import InvalidRequestError
from openproto_conformance.bench import Bench
from openproto_conformance.case import Area
from openproto_conformance.checks import equal, raises

area = Area("filters")

SCOPES = (
    None,
    "coding",
    "coding/preferences",
    "coding/preferences/editor",
    "coding/preferencesX",
    "codingx",
    "coding x",
    "coding-x/y",
    "Coding",
    "cod",
    "co",
    "c_ding",
    "c_ding/x",
    "coXXng",
    "co%ng",
    "co%ng/x",
    "coding?",
    "coding.",
    "[coding]",
    "c[o]ding",
    "coding\\",
    "other/coding",
    "other/coding/preferences",
    "agent/7/run/1",
    "agent/7/run/12",
    "agent/71/run/1",
    "%",
    "_",
    "[",
    "?",
)
FILTERS = (*filter(None, SCOPES), "coding/pref", "c", "nothing", "agent/7", "agent")
STARS_ELSEWHERE = ("a*", "*a", "a/*/b", "*/a", "**", "a/**", "*/", "a/b*", "*/*")

TAGS = (
    "tea",
    "tea ",
    "Tea",
    "te",
    "teal",
    "t_a",
    "t%",
    "%",
    "_",
    '"tea"',
    "tea,coffee",
    "coffee",
    "[tea]",
    "thé",
    "the\u0301",
)

Reader = Callable[[str], Awaitable[set[str]]]


def selects(filter: str, scope: str | None) -> bool:
    """Say whether a filter without its `/` or `/*` selects a record's scope: the node and whatever is beneath it."""
    return scope is not None and (scope == filter or scope[: len(filter) + 1] == f"{filter}/")


@area.case(
    "add", "list", features=("scopes",), hint="the scope filter of `list`: equality or a prefix ending in '/', no LIKE"
)
async def a_scope_selects_its_subtree(bench: Bench) -> None:
    """A scope filter selects its node and what lies beneath; `_`, `%`, `?`, and `[` are ordinary characters."""
    await _plant_scopes(bench)

    async def listed(filter: str) -> set[str]:
        return {record.content for record in await bench.inventory(bench.user(), scope=filter)}

    await _check_scopes(listed)


@area.case(
    "add",
    "search",
    features=("scopes",),
    hint="the scope filter of `search`: the same rule as `list`, in the index query",
)
async def search_keeps_to_the_scope(bench: Bench) -> None:
    """`search` filters by scope exactly as `list` does."""
    await _plant_scopes(bench)

    async def found(filter: str) -> set[str]:
        return {hit.memory.content for hit in await bench.client.search("note", bench.user(), scope=filter, limit=100)}

    await _check_scopes(found)


@area.case("add", "context", features=("scopes",), hint="`context`: the filters must reach the search beneath it")
async def context_keeps_to_the_scope(bench: Bench) -> None:
    """`context` filters by scope exactly as `list` does."""
    await _plant_scopes(bench)

    async def cited(filter: str) -> set[str]:
        block = await bench.client.context("note", bench.user(), scope=filter, token_budget=100_000)
        return {line.rpartition(" [")[0] for line in block.text.splitlines()}

    await _check_scopes(cited)


@area.case(
    "add",
    "list",
    "delete",
    features=("scopes",),
    hint="the scope filter of `delete_all`: it must not remove look-alikes",
)
async def delete_all_keeps_to_the_scope(bench: Bench) -> None:
    """`delete_all` removes exactly what the scope filter selects and says how many that were."""
    for filter in ("coding", "coding/preferences/", "c_ding/*", "co%ng", "[", "agent/7"):
        user = bench.user(filter)
        await _plant_scopes(bench, user)
        node = filter.removesuffix("/*").removesuffix("/")
        kept = {f"note {scope}" for scope in SCOPES if not selects(node, scope)}
        equal(await bench.client.delete_all(user, scope=filter), len(SCOPES) - len(kept), f"delete_all of {filter!r}")
        equal({record.content for record in await bench.inventory(user)}, kept, f"what delete_all of {filter!r} left")


@area.case("add", "list", features=("scopes",), hint="the filter '*': no filter at all, so records without a scope too")
async def a_star_selects_everything(bench: Bench) -> None:
    """`*` alone means every scope, and also records that have none."""
    await _plant_scopes(bench)
    everything = await bench.inventory(bench.user())
    equal(len(everything), len(SCOPES), "the number of records without a filter")
    equal(await bench.inventory(bench.user(), scope="*"), everything, "list with scope='*'")
    if "search" in bench.capabilities.verbs:
        equal(len(await bench.found("note", bench.user(), scope="*")), len(SCOPES), "found with scope='*'")
    if "delete" in bench.capabilities.verbs:
        equal(await bench.client.delete_all(bench.user(), scope="*"), len(SCOPES), "delete_all with scope='*'")


@area.case(
    "list", features=("scopes",), hint="validation of scope filters: a '*' counts only alone, or as a last segment"
)
async def a_star_elsewhere_is_invalid(bench: Bench) -> None:
    """`*` anywhere else in a filter, or anywhere in a record's scope, is invalid_request."""
    verbs = bench.capabilities.verbs
    for filter in STARS_ELSEWHERE:
        await raises(InvalidRequestError, bench.client.list, bench.user(), scope=filter)
        if "search" in verbs:
            await raises(InvalidRequestError, bench.client.search, "note", bench.user(), scope=filter)
            await raises(InvalidRequestError, bench.client.context, "note", bench.user(), scope=filter)
        if "delete" in verbs:
            await raises(InvalidRequestError, bench.client.delete_all, bench.user(), scope=filter)
    for scope in ("*", "a/*", "a*", *STARS_ELSEWHERE):
        await raises(InvalidRequestError, bench.client.add, "note", user_id=bench.user(), scope=scope)


@area.case("add", "list", hint="the tag filter: membership of the whole tag, case and accents included")
async def a_tag_selects_exactly_itself(bench: Bench) -> None:
    """A tag filter selects the records that have that very tag."""
    user = bench.user()
    await bench.add_many(
        [{"content": f"note {n}", "user_id": user, "tags": ["all", tag]} for n, tag in enumerate(TAGS)]
    )
    await bench.add("note untagged", user_id=user)
    for n, tag in enumerate(TAGS):
        equal([r.content for r in await bench.inventory(user, tag=tag)], [f"note {n}"], f"list with tag={tag!r}")
        if "search" in bench.capabilities.verbs:
            hits = await bench.client.search("note", user, tag=tag)
            equal([hit.memory.content for hit in hits], [f"note {n}"], f"search with tag={tag!r}")
    equal(len(await bench.inventory(user, tag="all")), len(TAGS), "records with a tag that is not the first")
    equal(await bench.inventory(user, tag="nobody has it"), [], "records with an unknown tag")


@area.case("add", "list", "delete", hint="the tag filter of `delete_all`")
async def delete_all_keeps_to_the_tag(bench: Bench) -> None:
    """`delete_all` removes exactly the records that have the tag."""
    user = bench.user()
    await bench.add_many([{"content": f"note {n}", "user_id": user, "tags": [tag]} for n, tag in enumerate(TAGS)])
    equal(await bench.client.delete_all(user, tag="t_a"), 1, "delete_all with tag='t_a'")
    equal({r.tags[0] for r in await bench.inventory(user)}, set(TAGS) - {"t_a"}, "the tags that are left")


@area.case("add", "list", features=("scopes",), hint="several filters at once: each narrows, none replaces another")
async def filters_narrow_together(bench: Bench) -> None:
    """Several filters select what all of them select."""
    user = bench.user()
    items = [
        {"content": f"note {scope} {tag}", "user_id": user, "scope": scope, "tags": [tag]}
        for scope in ("a", "a/b", "ab")
        for tag in ("x", "y")
    ]
    await bench.add_many(items)
    wanted = {"note a x", "note a/b x"}
    equal({r.content for r in await bench.inventory(user, scope="a", tag="x")}, wanted, "list by scope and tag")
    if "search" in bench.capabilities.verbs:
        hits = await bench.client.search("note", user, scope="a", tag="x", limit=100)
        equal({hit.memory.content for hit in hits}, wanted, "search by scope and tag")


@area.case(
    "add", "list", features=("scopes",), hint="the order of filter and limit: filter first, or fetch on until filled"
)
async def filters_come_before_the_limit(bench: Bench) -> None:
    """The limit counts what the filters selected, however many others are newer or better."""
    user = bench.user()
    wanted = await bench.add("a note on rivers", user_id=user, scope="rare", tags=["rare"])
    crowd = {"content": "a note on rivers, a note on rivers", "user_id": user, "scope": "common", "tags": ["common"]}
    await bench.add_many([crowd] * bench.size(1000, 250))
    for filter in ({"scope": "rare"}, {"tag": "rare"}):
        page = await bench.client.list(user, limit=1, **filter)  # type: ignore[arg-type]
        equal([r.id for r in page.items], [wanted.id], f"list with limit=1 and {filter}")
        if "search" in bench.capabilities.verbs:
            equal(await bench.found("note on rivers", user, limit=1, **filter), [wanted.id], f"search with {filter}")


@area.case("add", "list", hint="`since` and `until`: both inclusive, on created_at, to the microsecond")
async def since_and_until_are_inclusive(bench: Bench) -> None:
    """`since` and `until` bound created_at and include the bound itself."""
    user = bench.user()
    for n in range(5):
        await bench.add(f"note {n}", user_id=user)
    everything = await bench.inventory(user)
    tick = timedelta(microseconds=1)
    for bound in {record.created_at for record in everything}:
        for moment in (bound - tick, bound, bound + tick):
            since = [r for r in everything if r.created_at >= moment]
            until = [r for r in everything if r.created_at <= moment]
            equal(await bench.inventory(user, since=moment), since, "list since a moment beside a record's own")
            equal(await bench.inventory(user, until=moment), until, "list until a moment beside a record's own")
        exact = [r for r in everything if r.created_at == bound]
        equal(await bench.inventory(user, since=bound, until=bound), exact, "list of one single moment")
    equal(await bench.inventory(user, since=everything[0].created_at + tick), [], "list since later than all")


async def _plant_scopes(bench: Bench, user: str | None = None) -> None:
    user = user or bench.user()
    await bench.add_many([{"content": f"note {scope}", "user_id": user, "scope": scope} for scope in SCOPES])


async def _check_scopes(read: Reader) -> None:
    """Compare what `read` returns for each filter, in its three spellings, with the rule."""
    for filter in FILTERS:
        wanted = {f"note {scope}" for scope in SCOPES if selects(filter, scope)}
        for spelling in (filter, f"{filter}/", f"{filter}/*"):
            equal(await read(spelling), wanted, f"what scope={spelling!r} selects")
