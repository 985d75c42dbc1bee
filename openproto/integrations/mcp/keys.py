"""API keys as bearer tokens: the subject of a verified key is the user that it may act for."""

from __future__ import annotations

from collections.abc import Iterable

from mcp.server.auth.provider import AccessToken

from openproto.server.keys import ApiKey, find_key


class KeyVerifier:
    """Verifies the keys of `openproto serve`.

    Raises ValueError for a key of several users, or of all of them: nothing but the key says whose memories a model
    sees. Also for a key that may only read, unless the server is `read_only`: a server has the same tools for all.
    """

    def __init__(self, keys: Iterable[ApiKey], *, read_only: bool = False) -> None:
        self._keys = list(keys)
        for key in self._keys:
            if key.read_only and not read_only:
                raise ValueError(f"the key {key.name!r} may only read, and this MCP server writes; make it read-only")
            if key.users == "*" or len(key.users) != 1:
                raise ValueError(
                    f"the key {key.name!r} is not bound to one user; give each user of the MCP server their own key"
                )

    async def verify_token(self, token: str) -> AccessToken | None:
        """Return whom the token stands for, or None for a key that is unknown or has expired."""
        key = find_key(self._keys, token.encode())
        if key is None or key.has_expired:
            return None
        return AccessToken(token=token, client_id=key.name, scopes=[], subject=key.users[0])
