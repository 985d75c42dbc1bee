"""What a client puts round its provider, from the innermost: a mirror, a fallback, an audit journal, a reranker."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from openproto.layers.rerank import Reranker
from openproto.provider import Provider
from openproto.registry import make_provider

if TYPE_CHECKING:
    from openproto.layers.mirroring.status import MirrorStatus

Second: TypeAlias = Provider | Mapping[str, Any]
"""A second provider: an unopened one, or a mapping of `provider` (a name, or an unopened one) and its options."""

_SECRET = ("key", "token", "secret", "password")


def layered(
    provider: Provider,
    *,
    timeout: float | None,
    mirror: Second | None,
    fallback: Second | None,
    audit: str | None,
    audit_reads: bool,
    rerank: Reranker | None,
) -> Provider:
    """Return the provider with what the client's options put round it."""
    # Imported here, each: few clients have any.
    if mirror is not None:
        from openproto.layers.mirror import Mirrored

        other, own = _second("mirror", mirror, ("journal", "sample"))
        provider = Mirrored(provider, other, _journal(provider, other, own.pop("journal", None)), **own)
    if fallback is not None:
        from openproto.layers.failover import AFTER, FailingOver

        other, own = _second("fallback", fallback, ("after",))
        if timeout is not None:  # the fallback needs time too
            own.setdefault("after", min(AFTER, timeout / 2))
        provider = FailingOver(provider, other, **own)
    if audit is not None:
        from openproto.layers.audit import Audited

        provider = Audited(provider, audit, reads=audit_reads)
    if rerank is not None:
        from openproto.layers.rerank import Reranked

        provider = Reranked(provider, rerank)
    return provider


def mirror_journal(provider: Provider, mirror: Second) -> Path:
    """Return where the journal is that a client with this mirror writes."""
    other, own = _second("mirror", mirror, ("journal", "sample"))
    return _journal(provider, other, own.get("journal"))


def mirror_status(journal: Path) -> MirrorStatus:
    """Return how far the mirror is that has this journal."""
    from openproto.layers.mirroring import status  # needs SQLite, which not every client does

    return status.mirror_status(journal)


def _second(option: str, given: Second, takes: tuple[str, ...]) -> tuple[Provider, dict[str, Any]]:
    """Return the provider, and those of the options in `takes`, which are the layer's."""
    if isinstance(given, Provider):
        return given, {}
    if not isinstance(given, Mapping) or "provider" not in given:
        raise TypeError(f'{option}= takes a Provider, or a mapping such as {{"provider": "mem0"}} with its options')
    options = dict(given)
    provider = options.pop("provider")
    own = {name: options.pop(name) for name in takes if name in options}
    if isinstance(provider, str):
        return make_provider(provider, options, takes), own
    if not isinstance(provider, Provider) or options:
        raise TypeError(
            f"{option}= takes, next to a Provider object, only {', '.join(takes)}; other options belong in its own "
            "constructor"
        )
    return provider, own


def _journal(primary: Provider, mirror: Provider, given: str | Path | None) -> Path:
    if given is not None:
        return Path(given)
    from platformdirs import user_state_path  # the journal's place is named by most who have one

    described = repr([_description(each) for each in (primary, mirror)])
    return user_state_path("openproto") / f"mirror-{blake2b(described.encode(), digest_size=8).hexdigest()}.db"


def _description(provider: Provider) -> list[str]:
    """Return which store it is: its name, paths, and URLs, without users and passwords."""
    args, options = provider._made_of
    named = [*enumerate(args), *sorted(options.items())]
    return [
        provider.name,
        *(
            f"{name}={_without_user(str(value))}"
            for name, value in named
            if isinstance(value, str | Path) and not any(word in str(name) for word in _SECRET)
        ),
    ]


def _without_user(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{separator}{host.rpartition('@')[2]}{slash}{path}" if separator else url
