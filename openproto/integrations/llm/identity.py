"""Whose conversation a call belongs to: found out anew at each call, and never guessed."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import TypeAlias

from openproto import InvalidRequestError
from openproto.fields import ScopePath, UserId
from openproto.requests import Request, build

Named: TypeAlias = str | Callable[[], str | None] | ContextVar[str] | ContextVar[str | None]
"""A text, a function that returns it, or a context variable that holds it."""


class Owner(Request):
    """The user, and the scope within the user's memories, that a call recalls from and is captured under."""

    user_id: UserId
    scope: ScopePath | None = None


def current_owner(user_id: Named, scope: Named | None) -> Owner:
    """Return the owner of the call that is being made.

    Raises InvalidRequestError (a ValueError) when there is no user id now, or it breaks the protocol's limits: memories
    of nobody in particular would be shared by everybody.
    """
    user = _now(user_id)
    if user is None:
        raise InvalidRequestError(
            "no user id for this LLM call: the user_id= given to wrap() has no value here. Set it before the call"
        )
    return build(Owner, user_id=user, scope=None if scope is None else _now(scope))


def _now(named: Named) -> str | None:
    if isinstance(named, ContextVar):
        return named.get(None)
    return named() if callable(named) else named
