"""The protocol on backends that keep texts with metadata and know nothing of it: what adapters of such vendors share.

An adapter subclasses `EmulatedProvider` and says how one memory is written, found, replaced, removed, listed, and
ranked at its vendor; supersession, validity, scopes, idempotency, filters, order, and paging are then the same
everywhere.
"""

from openproto.emulation.locks import KeyedLocks
from openproto.emulation.matching import is_current, matches, scope_nodes
from openproto.emulation.provider import EmulatedProvider, Ranked
from openproto.emulation.stored import Stored, user_token

__all__ = ["EmulatedProvider", "KeyedLocks", "Ranked", "Stored", "is_current", "matches", "scope_nodes", "user_token"]
