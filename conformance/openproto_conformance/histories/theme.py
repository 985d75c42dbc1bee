"""What a history is about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from openproto import Capabilities
from openproto.models import Verb
from openproto_conformance.case import Feature


@dataclass(frozen=True)
class Theme:
    """What a history is about: which steps how often, which fields, how many users and clients."""

    name: str
    sentence: str
    hint: str
    steps: Mapping[str, int]
    fields: tuple[str, ...] = ("scope", "tags", "source", "confidence", "validity", "extensions")
    filters: tuple[str, ...] = ("scope", "tag")
    verbs: tuple[Verb, ...] = ("add", "get", "list")
    features: tuple[Feature, ...] = ()
    needs: str | None = None
    """An operation without which there is nothing to try."""
    users: int = 2
    clients: int = 2
    long: bool = False
    crowd: int = 0
    """How many plain records there are from the start, beyond what a page or a default limit holds."""
    share: float = 1.0
    """How long its histories are beside those of other themes."""
    unicode_users: bool = False


_NEEDS = {"put": "put", "scopes": "scopes", "users": "users", "restore": "restore"}
_VERBS = {
    **dict.fromkeys(("add_many", "put", "restore", "race", "at once", "cancelled"), "add"),
    "delete_all": "delete",
    **dict.fromkeys(("scopes", "users"), "list"),
}


def declares(capabilities: Capabilities, kind: str) -> bool:
    """Whether a provider declares what a kind of step needs."""
    support = capabilities.x_openproto.support
    if kind in _NEEDS and support.get(_NEEDS[kind], "none") == "none":
        return False
    verb = _VERBS.get(kind, kind)
    return verb == "reopen" or verb in capabilities.verbs
