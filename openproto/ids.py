"""Record ids for the stores of this project: time-ordered UUIDs (RFC 9562, version 8).

Layout: 48 bits of Unix milliseconds, then 12 bits taken from a hash of the user id, then 62 random bits. Ids of one
process are strictly increasing per user even within a millisecond, so a batch keeps its order; the hash bits let a
sharded store find an id's shard without asking every one. Clients treat ids as opaque.
"""

from __future__ import annotations

import os
import random
import re
import threading
import time
import uuid
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from hashlib import blake2b

_RANDOM_BITS = 62
_STEP_BITS = 32
_UUID = re.compile("[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}").fullmatch

_lock = threading.Lock()
_last_ms = 0
_last_random = 0
_beginning = ""
"""How the ids of that millisecond begin."""
# Not the generator that a program may seed, and not the system, which takes far longer to ask.
_generator = random.Random()  # noqa: S311 - an id is no secret
_bits = _generator.getrandbits


def _after_fork() -> None:
    global _last_ms
    # Going on from the parent's last id, or with its generator, would make the parent's next ids.
    _last_ms = 0
    _generator.seed()
    _lock.release()


if hasattr(os, "register_at_fork"):
    # Another thread may hold the lock while this process forks: the child would wait for that thread for ever.
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_after_fork)


def new_id(user_id: str) -> str:
    """Return a fresh id for a record of `user_id`: a UUID in its canonical form."""
    global _last_random
    now = time.time_ns() // 1_000_000
    with _lock:
        if now > _last_ms:
            _begin(now)
        else:
            _last_random += 1 + _bits(_STEP_BITS)
            if _last_random >> _RANDOM_BITS:
                _begin(_last_ms + 1)
        beginning, tail = _beginning, _last_random
    # Written down directly: making a UUID object and its text takes twice as long.
    end = f"{0b10 << 62 | tail:016x}"
    return f"{beginning}{_shard(user_id)}-{end[:4]}-{end[4:]}"


def _begin(ms: int) -> None:
    global _last_ms, _last_random, _beginning
    # The top bit stays clear so that many steps fit before the field overflows.
    _last_ms, _last_random = ms, _bits(_RANDOM_BITS - 1)
    head = f"{ms & (1 << 48) - 1:012x}"
    _beginning = f"{head[:8]}-{head[8:]}-8"


@lru_cache(maxsize=1024)
def _shard(user_id: str) -> str:
    """Return 12 bits of the user's id's hash, in hexadecimal."""
    return blake2b(user_id.encode(), digest_size=2).hexdigest()[1:]


def is_uuid(id: str) -> bool:
    """Say whether the id is a UUID in its canonical form, as is each that this project makes."""
    return _UUID(id) is not None


def parse_id(id: str) -> uuid.UUID | None:
    """Return the UUID that `id` spells in canonical form, or None: an id that this project never made."""
    return uuid.UUID(id) if is_uuid(id) else None


def moment_of(id: str) -> datetime | None:
    """Return the millisecond in which this project made `id`, or None where it did not."""
    parsed = parse_id(id)
    if parsed is None or parsed.version != 8:
        return None
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=parsed.int >> 80)


def unique_token(bits: int) -> str:
    """Return `bits` random bits, whole bytes, in hexadecimal: a name that nothing else has, and no secret.

    Of this process's generator, which is seeded by the system and anew after a fork: asking the system each time costs
    a call that gives the interpreter's lock away.
    """
    return _bits(bits).to_bytes(bits // 8).hex()
