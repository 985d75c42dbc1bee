"""Who is asking: the key of a request, the users it may act for, and how often.

A key that is bound to users is enforced in the store: a record is looked up as one of theirs, so that what is not
theirs and what is not there look the same. `X-User-Id` narrows a key to one user and never adds one.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from limits import parse
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import MovingWindowRateLimiter
from starlette.requests import Request

from openproto import InvalidRequestError, NotFoundError, RateLimitedError, ScopeDeniedError, UnauthorizedError
from openproto.fields import Label, UserId
from openproto.provider import Origin, current_origin
from openproto.requests import Request as Model
from openproto.requests import build
from openproto.server.key_ring import KeyRing
from openproto.server.keys import EVERYONE, ApiKey
from openproto.server.settings import ServerSettings
from openproto.server.trace import KEY_NAME

T = TypeVar("T")

ONLY_USER = "openproto.only_user"
"""Where a request's scope holds the user that need not be named, or None."""


class IdentityHeaders(Model):
    """What a request says of itself in headers; a blank one is refused, and does not pass for none."""

    user_id: UserId | None
    app: Label | None


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent the request; `users` are those it may act for, None for all."""

    users: frozenset[str] | None = None
    read_only: bool = False

    @property
    def only_user(self) -> str | None:
        """The one user that the caller may act for, and so need not name; None where there are more."""
        return next(iter(self.users)) if self.users is not None and len(self.users) == 1 else None

    def require_write(self) -> None:
        """Raise ScopeDeniedError where the key may only read."""
        if self.read_only:
            raise ScopeDeniedError("this key may only read; use one that may write")

    def require_all_users(self) -> None:
        """Raise ScopeDeniedError where the key is bound to users."""
        if self.users is not None:
            raise ScopeDeniedError("this needs a key of all users; use one, and send no X-User-Id")

    def require(self, user_id: str) -> None:
        """Raise ScopeDeniedError unless the caller may act for the user; nothing is looked up, so nothing shows."""
        if self.users is not None and user_id not in self.users:
            raise ScopeDeniedError("this key may not act for that user; use one of theirs")

    async def on_record(self, user_id: str | None, run: Callable[[str | None], Awaitable[T]]) -> T:
        """Run a verb on a record as each user that it may belong to, until it is found; NotFoundError if never."""
        candidates: Sequence[str | None]
        if self.users is None:
            candidates = [user_id]
        else:
            candidates = sorted(self.users) if user_id is None else sorted(self.users & {user_id})
        for candidate in candidates[:-1]:
            try:
                return await run(candidate)
            except NotFoundError:
                continue
        if not candidates:
            raise NotFoundError("no such memory")
        return await run(candidates[-1])


class Gate:
    """Lets requests in: with a good key where keys are configured, and no more often than the limit says."""

    def __init__(self, settings: ServerSettings, keys: KeyRing) -> None:
        self._keys = keys
        self._limit = parse(settings.rate_limit) if settings.rate_limit else None
        self._limiter = MovingWindowRateLimiter(MemoryStorage()) if self._limit else None

    async def admit(self, request: Request) -> Caller:
        """Return who sent the request; UnauthorizedError or RateLimitedError otherwise.

        Calls made from here on are recorded under the request's id, and under the app that the sender names.
        """
        key = self._key(request)
        if key is not None:
            request.scope[KEY_NAME] = key.name
        await self._count(key.sha256 if key else request.client.host if request.client else "")
        users = None if key is None or key.users == EVERYONE else frozenset(key.users)
        given = {"user_id": header(request, b"x-user-id"), "app": header(request, b"x-omp-app")}
        build(IdentityHeaders, **given)
        current_origin.set(Origin(request.scope["openproto.request_id"], given["app"]))
        if (user_id := given["user_id"]) is not None:
            users = frozenset({user_id}) if users is None else users & {user_id}
        caller = Caller(users, read_only=key is not None and key.read_only)
        request.scope[ONLY_USER] = caller.only_user
        return caller

    def _key(self, request: Request) -> ApiKey | None:
        if not self._keys.required:
            return None
        authorization, presented = header(request, b"authorization"), header(request, b"x-api-key")
        if authorization is not None:
            scheme, _, token = authorization.partition(" ")
            # Two credentials that differ are none: which of them was meant?
            same = presented is None or presented == token.strip()
            presented = token.strip() if scheme.lower() == "bearer" and same else None
        if not presented:
            raise UnauthorizedError("an API key is needed, as `Authorization: Bearer <key>` or `X-API-Key: <key>`")
        return self._keys.authenticate(presented)

    async def _count(self, who: str) -> None:
        if self._limit is None or self._limiter is None or await self._limiter.hit(self._limit, who):
            return
        window = await self._limiter.get_window_stats(self._limit, who)
        raise RateLimitedError(
            f"more than {self._limit.amount} requests in {self._limit.get_expiry()} s; wait",
            retry_after=max(0.0, window.reset_time - time.time()),
        )


def header(request: Request, name: bytes) -> str | None:
    """Return a header as the UTF-8 it must be; `name` in lower case. One given twice is refused: which was meant?"""
    values = [value for key, value in request.scope["headers"] if key == name]
    if not values:
        return None
    if len(values) > 1:
        raise InvalidRequestError(f"{name.decode()}: must not be given twice")
    try:
        text: str = values[0].decode()
    except UnicodeDecodeError:
        raise InvalidRequestError(f"{name.decode()}: must be UTF-8") from None
    return text
