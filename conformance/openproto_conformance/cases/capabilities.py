"""Capabilities: what is declared holds, and what holds is declared."""

from __future__ import annotations

import asyncio

from openproto import InvalidRequestError, OpenProtoError, PayloadTooLargeError
from openproto.models import OMP_VERSION, VERBS
from openproto_conformance.bench import Bench
from openproto_conformance.case import Area
from openproto_conformance.checks import ensure, equal
from openproto_conformance.refusals import ATTEMPTS, check_absent, check_refused
from openproto_conformance.spy import spy_on

area = Area("capabilities")

REQUIRED = ("add", "get", "delete", "capabilities")
TIERS = ("native", "aborting", "detached")
FLAGS = (
    "vector_search", "keyword_search", "graph_queries", "temporal", "supports_e2e", "supports_audit",
    "supports_supersession", "async_ingestion",
)  # fmt: skip


@area.case(
    "capabilities", hint="`capabilities()`: the protocol's version, the provider's name, and the verbs it really has"
)
async def the_declaration_is_well_formed(bench: Bench) -> None:
    """Capabilities name the protocol's version, the provider, its verbs, a scopes tier, and a cancellation tier."""
    claims, provider = bench.capabilities, bench.provider_of(bench.client)
    equal((claims.omp_version, claims.provider), (OMP_VERSION, provider.name), "version and provider")
    equal(set(claims.verbs) & set(VERBS), set(provider.verbs), "the declared verbs, beside those that the provider has")
    equal(len(set(claims.verbs)), len(claims.verbs), "the number of distinct verbs")
    ensure(claims.features.scopes in ("native", "tags", "none"), f"features.scopes is {claims.features.scopes!r}")
    equal(claims.x_openproto.cancellation, provider.cancellation, "the cancellation tier, beside the provider's own")
    ensure(provider.cancellation in TIERS, f"the cancellation tier is {provider.cancellation!r}")


@area.case("capabilities", hint="the verbs without which nothing can be kept: add, get, delete, and list or search")
async def the_least_is_there(bench: Bench) -> None:
    """A provider has `add`, `get`, `delete`, `capabilities`, and `list` or `search`."""
    verbs = set(bench.capabilities.verbs)
    ensure(verbs >= set(REQUIRED), f"without {sorted(set(REQUIRED) - verbs)} there is no memory to speak of")
    ensure(verbs & {"list", "search"}, "a provider needs list or search")


@area.case("capabilities", hint="the memo of capabilities: one question to the provider for each client")
async def capabilities_are_asked_once(bench: Bench) -> None:
    """A client asks the provider for its capabilities once."""
    provider = bench.backend.provider()
    calls = spy_on(provider)
    client = await bench.open(provider)
    first = await client.capabilities()
    equal(await client.capabilities(), first, "the capabilities when asked again")
    equal(calls.count("capabilities"), 1, "how often the provider was asked")


@area.case("capabilities", hint="a verb is declared by overriding it; what is not declared must refuse")
async def a_verb_works_or_refuses(bench: Bench) -> None:
    """A declared verb is not refused, and an undeclared one is, before any I/O, naming the verb and the provider."""
    for verb in VERBS:
        if verb not in bench.capabilities.verbs:
            await check_refused(bench, verb, is_verb=True)
            await check_absent(bench.provider_of(bench.client), verb)
        elif verb in ATTEMPTS:
            try:
                await ATTEMPTS[verb](bench.client, bench.user())
            except OpenProtoError as error:
                ensure(error.code == "not_found", f"{verb} is declared, and fails with {error.code}")


@area.case("add", hint="features that have a parameter of their own: declared and kept, or undeclared and refused")
async def a_feature_holds_or_is_refused(bench: Bench) -> None:
    """An undeclared feature is refused when it is asked for; a declared one is not."""
    features = bench.capabilities.features
    for feature in ("temporal", "scopes", "supports_supersession"):
        if feature == "temporal" and "list" not in bench.capabilities.verbs:
            continue
        if getattr(features, feature) in (False, "none"):
            await check_refused(bench, feature, is_verb=False)
        else:
            try:
                await ATTEMPTS[feature](bench.client, bench.user())
            except OpenProtoError as error:
                ensure(error.code == "not_found", f"{feature} is declared, and fails with {error.code}")
    equal(features.supports_audit, "audit" in bench.capabilities.verbs, "supports_audit, beside the verb")


@area.case(
    "capabilities",
    hint="x-openproto.support: an entry for each verb and feature, `none` exactly where it is undeclared",
)
async def support_agrees_with_the_declaration(bench: Bench) -> None:
    """Where x-openproto says how a verb or feature is done, it says `none` exactly for what is not declared."""
    claims = bench.capabilities
    for name, how in claims.x_openproto.support.items():
        if name in VERBS:
            declared = name in claims.verbs
        elif name in FLAGS:
            declared = bool(getattr(claims.features, name))
        elif name == "scopes":
            declared = claims.features.scopes != "none"
        else:
            continue
        ensure(how in ("native", "emulated", "none"), f"the support of {name} is {how!r}")
        equal(how != "none", declared, f"whether {name} is supported, beside whether it is declared")


@area.case("add", "get", hint="async_ingestion: undeclared, every add must return done")
async def ingestion_is_as_declared(bench: Bench) -> None:
    """A provider without async ingestion returns every memory as done, and one with it does not."""
    statuses = {(await bench.client.add(f"note {n}", user_id=bench.user())).status for n in range(5)}
    if bench.capabilities.features.async_ingestion:
        ensure(statuses & {"queued", "indexing"}, "async_ingestion is declared, and every memory is done at once")
    else:
        ensure(statuses <= {"done", None}, f"async_ingestion is not declared, and the statuses are {statuses}")


@area.case(
    "add",
    "search",
    hint="keyword_search: declared, a rare word must find its record; and the vector may not be all there is",
)
async def keyword_search_is_as_declared(bench: Bench) -> None:
    """With keyword search, a made-up word finds the one record that has it among many, before all others."""
    if not bench.capabilities.features.keyword_search:
        ensure(bench.capabilities.features.vector_search, "a provider that searches must declare what by")
        return
    user = bench.user()
    await bench.add_many([{"content": f"the ship number {n} sails on Monday", "user_id": user} for n in range(50)])
    record = await bench.add("the ship qzxvytr sails on Monday", user_id=user)
    equal((await bench.found("qzxvytr", user))[:1], [record.id], "the first result for a made-up word")
    equal((await bench.found("when does the qzxvytr sail", user))[:1], [record.id], "the first result in a question")


@area.case(
    "add", "search", hint="vector_search: declared, meaning must be enough to find; undeclared, it must not happen"
)
async def vector_search_is_as_declared(bench: Bench) -> None:
    """A query that shares no word with a record finds it by meaning exactly where vector search is declared."""
    user = bench.user()
    cat = await bench.add("Our cat sleeps on the sofa", user_id=user)
    await bench.add("The invoice must be paid by Friday", user_id=user)
    await bench.add("Tokyo lies in Japan", user_id=user)
    found = await bench.found("a kitten napping", user)
    if bench.capabilities.features.vector_search:
        equal(found[:1], [cat.id], "the first result by meaning")
    else:
        equal(found, [], "what is found by meaning alone, though vector_search is not declared")


@area.case("add", hint="max_content_length: exactly so many characters are taken, and not one more")
async def the_content_limit_is_as_declared(bench: Bench) -> None:
    """Content of the declared greatest length is stored, and one character more is refused."""
    longest = bench.capabilities.features.max_content_length or 100_000
    record = await bench.client.add("c" * longest, user_id=bench.user())
    equal(len(record.content), longest, "the length that was stored")
    try:
        await bench.client.add("c" * (longest + 1), user_id=bench.user())
    except (InvalidRequestError, PayloadTooLargeError):
        return
    ensure(False, f"max_content_length is {longest}, and one character more was taken")


@area.case("add", "list", faces=("async",), hint="the cancellation tier: what stops in the backend is not `detached`")
async def the_tier_is_not_below_what_is_kept(bench: Bench) -> None:
    """Where `detached` is declared, a call that is under way in the backend does go on after it was cancelled."""
    if bench.capabilities.x_openproto.cancellation != "detached":
        return
    user = bench.user()
    with bench.backend_stalled() as stalled:
        if not stalled:
            return
        calls = [asyncio.ensure_future(bench.client.add(f"note {n}", user_id=user)) for n in range(20)]
        await asyncio.sleep(0.3)
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)
    for _ in range(20):
        if await bench.inventory(user):
            return
        await asyncio.sleep(0.2 * bench.backend.patience)
    ensure(False, "all calls stopped in the backend when they were cancelled: the tier is better than `detached`")


@area.case("add", "search", hint="max_search_results: so many must really come")
async def the_search_limit_is_as_declared(bench: Bench) -> None:
    """A search with the greatest declared limit returns that many results where as many match, and never more."""
    user = bench.user()
    most = bench.capabilities.limits.max_search_results or 100
    ensure(1 <= most <= 100, f"max_search_results is {most}, and the protocol knows 1 to 100")
    await bench.add_many([{"content": f"the river note {n}", "user_id": user} for n in range(most + 5)])
    for limit in {most, 100}:
        equal(len(await bench.client.search("river note", user, limit=limit)), most, "the number of results")
