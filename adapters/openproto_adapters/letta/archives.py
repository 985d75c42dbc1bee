"""Where a user's passages are: the oldest archive that has the user's name.

Several archives may have one name. Processes that create one at the same time look again and take the oldest; another
process may also delete the archive that this one remembers, and create the next.
"""

from __future__ import annotations

import logging
from typing import Unpack

from openproto.emulation import KeyedLocks, OwnedId, Recent, user_token
from openproto.errors import NotFoundError
from openproto_adapters.letta.api import PAGE, Api, Archive, Hit, NewPassage, Wanted

REMEMBERED = 10_000

_log = logging.getLogger(__name__)
_creating = KeyedLocks()


class Archives:
    """The archives of one server, by their users' tokens; `embedding` is the model that new ones get."""

    def __init__(self, api: Api, embedding: str | None) -> None:
        self._api = api
        self._embedding = embedding
        self._remembered: Recent[str, Archive] = Recent(REMEMBERED)

    async def owner(self, token: str) -> str | None:
        """Return the user's id, if an archive states it."""
        archive = self._remembered.get(token) or await self._find(token)
        stated = archive.description if archive else None
        return stated if stated and user_token(stated) == token else None  # other programs may have changed it

    async def tokens(self) -> set[str]:
        """Return the tokens of the users who have an archive."""
        names: set[str] = set()
        after: str | None = None
        try:
            while page := await self._api.find_archives(None, PAGE, after):
                names |= {archive.name for archive in page}
                after = page[-1].id
        except NotFoundError:
            if after is None:
                raise
            return await self.tokens()  # another process has deleted the archive after which to go on
        return {own.token for name in names if (own := OwnedId.read(name.removeprefix(_name("")))) is not None}

    async def search(self, token: str, **wanted: Unpack[Wanted]) -> list[Hit]:
        """Return what `Api.search` finds in the user's archive."""
        remembered = self._remembered.get(token)
        if remembered is not None and (hits := await self._api.search(remembered.id, **wanted)):
            return hits
        # Nothing: which is also how Letta answers for an archive that is gone.
        archive = await self._find(token)
        if archive is None or (remembered is not None and archive.id == remembered.id):
            return []
        return await self._api.search(archive.id, **wanted)

    async def write(self, user_id: str, *passages: NewPassage) -> list[str]:
        """Write passages into the user's archive, which is created if need be, and return their ids."""
        token = user_token(user_id)
        if (remembered := self._remembered.get(token)) is not None:
            try:
                return await self._api.create_passages(remembered, passages)
            except NotFoundError:
                self._remembered.pop(token)
        return await self._api.create_passages(await self._find_or_create(token, user_id), passages)

    async def remove(self, token: str, passage_id: str) -> bool:
        """Delete a passage of the user's archive; False where it is gone."""
        archive = self._remembered.get(token) or await self._find(token)
        return archive is not None and await self._api.delete_passage(archive.id, passage_id)

    async def remove_all(self, token: str) -> None:
        """Delete every archive of the user."""
        self._remembered.pop(token)
        for archive in await self._api.find_archives(_name(token), PAGE):
            await self._api.delete_archive(archive.id)

    async def _find(self, token: str) -> Archive | None:
        found = await self._api.find_archives(_name(token), 1)
        if not found:
            self._remembered.pop(token)
            return None
        self._remembered.put(token, found[0])
        return found[0]

    async def _find_or_create(self, token: str, user_id: str) -> Archive:
        async with _creating.hold([(token,)]):
            found = self._remembered.get(token) or await self._find(token)
            if found is not None:
                return found
            created = await self._api.create_archive(_name(token), user_id, self._embedding)
            if created.embedding_config is None:
                _log.warning("the archive has no embedding model, so searches find substrings only: set embedding=")
            return await self._find(token) or created


def _name(token: str) -> str:
    return f"openproto:{token}"
