"""The protocol on backends that keep texts with metadata and know nothing of it: what adapters of such vendors share.

An adapter subclasses `EmulatedProvider` and states how one memory is written, found, replaced, removed, listed, and
ranked at its vendor; supersession, validity, scopes, idempotency, filters, order, and paging are then the same
everywhere.
"""

from openproto.emulation.answers import another_users, damaged, deleted_since, no_such_memory, reader, reading
from openproto.emulation.locks import KeyedLocks
from openproto.emulation.matching import is_current, matches, scope_nodes
from openproto.emulation.options import api_key_of, check_base_url, without_credentials
from openproto.emulation.owned_ids import TOKEN, OwnedId, is_uuid, user_token
from openproto.emulation.provider import EmulatedProvider
from openproto.emulation.recent import Recent
from openproto.emulation.stored import Stored, made_at, owner_in
from openproto.emulation.traits import NATIVE, Traits
from openproto.emulation.vendor import Ranked, connect_in, connect_once, first_owners
from openproto.emulation.waiting import look_until

__all__ = [
    "NATIVE",
    "TOKEN",
    "EmulatedProvider",
    "KeyedLocks",
    "OwnedId",
    "Ranked",
    "Recent",
    "Stored",
    "Traits",
    "another_users",
    "api_key_of",
    "check_base_url",
    "connect_in",
    "connect_once",
    "damaged",
    "deleted_since",
    "first_owners",
    "is_current",
    "is_uuid",
    "look_until",
    "made_at",
    "matches",
    "no_such_memory",
    "owner_in",
    "reader",
    "reading",
    "scope_nodes",
    "user_token",
    "without_credentials",
]
