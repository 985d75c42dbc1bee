"""API keys as bearer tokens: the subject of a verified key is the user that it may act for."""

from __future__ import annotations

from collections.abc import Iterable

from mcp.server.auth.provider import AccessToken

from openproto.server.keys import ApiKey, find_key


class KeyVerifier:
    """Verifies the keys of `openproto serve`.

    Raises ValueError for a key of several users, or of all of them: nothing but the key says whose memories a model
    sees.
    """

    def __init__(self, keys: Iterable[ApiKey]) -> None:
        self._keys = list(keys)
        for key in self._keys:
            if key.users == "*" or len(key.users) != 1:
                raise ValueError(
                    f"the key {key.name!r} is not bound to one user; give each user of the MCP server their own key"
                )

    async def verify_token(self, token: str) -> AccessToken | None:
        """Return whom the token stands for, or None for an unknown key."""
        key = find_key(self._keys, token.encode())
        return AccessToken(token=token, client_id=key.name, scopes=[], subject=key.users[0]) if key else None
