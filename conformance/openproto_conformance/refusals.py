"""The other half of "declared": a verb or feature that a provider does not declare must be refused."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

from openproto import AsyncMemory, MemoryInput, Provider, UnsupportedCapabilityError
from openproto.models import Verb
from openproto.requests import AuditQuery, ListQuery, MemoryUpdate, RecordRef, SearchQuery
from openproto_conformance.bench import Bench
from openproto_conformance.case import Case, Feature
from openproto_conformance.checks import Violation, ensure, raises
from openproto_conformance.spy import spy_on

ATTEMPTS: dict[str, Callable[[AsyncMemory, str], Awaitable[Any]]] = {
    "add": lambda client, user: client.add("tea", user_id=user),
    "get": lambda client, user: client.get("some-id", user_id=user),
    "update": lambda client, user: client.update("some-id", user_id=user, content="tea"),
    "delete": lambda client, user: client.delete("some-id", user_id=user),
    "list": lambda client, user: client.list(user),
    "search": lambda client, user: client.search("tea", user),
    "context": lambda client, user: client.context("tea", user),
    "audit": lambda client, user: client.audit(user),
    "temporal": lambda client, user: client.list(user, as_of=datetime.now(UTC)),
    "scopes": lambda client, user: client.add("tea", user_id=user, scope="kitchen"),
    "supports_supersession": lambda client, user: client.add("tea", user_id=user, supersedes=["some-id"]),
}
"""How each verb, and each feature that has a parameter of its own, is asked for."""


_DIRECT: dict[Verb, Callable[[Provider], Awaitable[Any]]] = {
    "add": lambda provider: provider.add(MemoryInput(content="tea", user_id="nobody"), idempotency_key="key"),
    "get": lambda provider: provider.get(RecordRef(id="some-id")),
    "update": lambda provider: provider.update(RecordRef(id="some-id"), MemoryUpdate(content="tea")),
    "delete": lambda provider: provider.delete(RecordRef(id="some-id")),
    "list": lambda provider: provider.list(ListQuery(user_id="nobody")),
    "search": lambda provider: provider.search(SearchQuery(query="tea", user_id="nobody")),
    "audit": lambda provider: provider.audit(AuditQuery(user_id="nobody")),
}


async def check_absent(provider: Provider, verb: Verb) -> None:
    """Ask the provider itself for an undeclared verb: that it works all the same is a claim that was not made."""
    if verb not in _DIRECT:
        return  # context is search, and capabilities are always there
    try:
        await _DIRECT[verb](provider)
    except UnsupportedCapabilityError:
        return
    except Exception as error:
        raise Violation(f"{verb} is there, but not declared: it raised {type(error).__name__}") from error
    raise Violation(f"{verb} is there, but not declared")


def undeclared_verbs(bench: Bench, case: Case) -> list[Verb]:
    """Return the verbs that the case needs and the provider does not declare."""
    return [verb for verb in case.verbs if verb not in bench.capabilities.verbs]


def undeclared_features(bench: Bench, case: Case) -> list[Feature]:
    """Return the features that the case needs and the provider does not declare."""
    features = bench.capabilities.features
    return [feature for feature in case.features if getattr(features, feature) in (False, "none", None)]


async def check_refused(bench: Bench, what: str, *, is_verb: bool) -> None:
    """Ask for something undeclared: it must be refused, by name, and a verb before the provider is even called."""
    attempt = ATTEMPTS.get(what)
    if attempt is None:
        return  # a feature without a parameter of its own cannot be asked for; the capabilities cases look at those
    if not is_verb and what == "temporal" and "list" not in bench.capabilities.verbs:
        return
    provider = bench.backend.provider()
    calls = spy_on(provider)
    client = await bench.open(provider)
    calls.clear()

    async def refused() -> Any:
        return await attempt(client, bench.user())

    error = await raises(UnsupportedCapabilityError, refused)
    ensure(provider.name in f"{error} {error.provider}", f"the refusal of {what!r} does not name the provider")
    if is_verb:
        ensure(what in str(error), f"the refusal of {what!r} does not name it: {error}")
        ensure(not calls, f"{what!r} is not declared, and yet the provider was called: {calls}")
