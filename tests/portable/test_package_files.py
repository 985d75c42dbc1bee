"""Package files: nothing that was cut, changed, or made up passes for whole, and nothing of it is written."""

from __future__ import annotations

import gzip
import io
import itertools
import json
import random
import tracemalloc
import zlib
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Any

import pytest
from dict_vendor import DictVendor

from openproto import AsyncMemory, MemoryRecord, Provider, UnsupportedCapabilityError
from openproto.emulation import Stored
from openproto.models import AuditEntry, StoredRecord, UsedKey, UserPart
from openproto.portable import encryption
from openproto.portable.backup import back_up
from openproto.portable.encryption import Encrypting, decrypted
from openproto.portable.package import End, Manifest, PackageError, Writer, _sealed
from openproto.portable.restore import Restoration, check


class Shelf(DictVendor):
    """The vendor that is a dictionary, with one of its own, and without snapshots."""

    name = "shelf"
    snapshot = Provider.snapshot
    load = Provider.load

    def __init__(self) -> None:
        super().__init__({})

    @property
    def records(self) -> dict[str, MemoryRecord]:
        """Return what is kept, without versions, which are new where a record is restored."""
        kept = [Stored.from_text(row.metadata, row.text) for row in self.rows.values()]
        return {stored.id: stored.shown.model_copy(update={"version": None}) for stored in kept}


MANIFEST = Manifest(
    made_by="a test", provider="p", made_at="now", users="all", consistent=True, holds=[], lacks=[], model=None
)
WHEN = "2026-01-01T00:00:00Z"


def record(user: str, number: int, **fields: Any) -> dict[str, Any]:
    id = f"01a22839-3c56-8a29-9953-{number:012}"
    return {"id": id, "content": f"note {number}", "user_id": user, "created_at": WHEN, **fields}


def package(users: Sequence[str] = ("ada", "bob")) -> bytes:
    file = io.BytesIO()
    writer = Writer(file, MANIFEST)
    for number, user in enumerate(users):
        writer.begin(user)
        records = [StoredRecord.model_validate({"record": record(user, 2 * number + n)}) for n in (0, 1)]
        keys = [UsedKey(idempotency_key="k", record_id=records[0].record.id, fingerprint="0" * 32)]
        entry = AuditEntry.model_validate({"timestamp": WHEN, "action": "add", "user_id": user})
        writer.add(UserPart(user, records, keys, [entry]))
        writer.end()
    writer.finish()
    return file.getvalue()


LINES = gzip.decompress(package()).splitlines(keepends=True)[:-1]


def forged(lines: Sequence[bytes]) -> bytes:
    """Return lines as a package whose counts of everything and digests are right."""
    text = b"".join(lines)
    deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    body = package()[:10] + deflate.compress(text) + deflate.flush()
    body += zlib.crc32(text).to_bytes(4, "little") + (len(text) % 2**32).to_bytes(4, "little")
    kinds = {"users": b'{"user":', "records": b'{"record":', "keys": b'{"used_key":', "audit": b'{"audit":'}
    counts = {kind: sum(line.startswith(start) for line in lines) for kind, start in kinds.items()}
    digests = {"sha256": sha256(text).hexdigest(), "file_sha256": sha256(body).hexdigest()}
    return body + _sealed(End.model_validate({**counts, "lines": len(lines), **digests}))


def whole(data: bytes) -> End:
    return check(io.BytesIO(data)).counts


def test_each_flipped_bit_each_cut_and_each_swap_of_lines_is_found() -> None:
    data = package()
    assert whole(data).records == 4
    assert forged(LINES) == data
    for place in range(len(data)):
        for bit in range(8):
            flipped = bytearray(data)
            flipped[place] ^= 1 << bit
            with pytest.raises(PackageError):
                whole(bytes(flipped))
        with pytest.raises(PackageError):
            whole(data[:place])
    for more in (b"\0", data, _sealed(whole(data))):
        with pytest.raises(PackageError):
            whole(data + more)
    last = len(_sealed(whole(data)))
    for one, other in itertools.combinations(range(len(LINES)), 2):
        swapped = [*LINES]
        swapped[one], swapped[other] = LINES[other], LINES[one]
        if swapped != LINES:
            with pytest.raises(PackageError):
                whole(forged(swapped)[:-last] + data[-last:])


def edited(number: int, change: Callable[[dict[str, Any]], object]) -> bytes:
    """Return the small package with one line, counted from 1, changed and every digest made right."""
    fields = json.loads(LINES[number - 1])
    change(fields)
    line = (json.dumps(fields, separators=(",", ":")) + "\n").encode()
    return forged([*LINES[: number - 1], line, *LINES[number:]])


def of_record(**fields: Any) -> bytes:
    return edited(3, lambda line: line["record"].update(fields))


HOSTILE: dict[str, tuple[bytes, str]] = {
    "a newer version": (edited(1, lambda line: line.update({"openproto-package": 2})), "format 2 of a newer openproto"),
    "a foreign user": (of_record(user_id="eve"), "line 3: the record belongs to another user"),
    "a foreign entry": (edited(6, lambda line: line["audit"].update(user_id="eve")), "line 6: the entry belongs to"),
    "a million tags": (of_record(tags=["t"] * 10**6), "line 3: tags: "),
    "a long content": (of_record(content="x" * 100_001), "line 3: content: "),
    "no moment": (of_record(created_at="soon"), "line 3: record: "),
    "an extension without end": (of_record(**{"x-a": json.loads("[" * 500 + "]" * 500)}), "line 3: "),
    "a vector that is none": (edited(3, lambda line: line.update(vector="!")), "line 3: vector: "),
    "an endless key": (edited(5, lambda line: line["used_key"].update(idempotency_key="k" * 257)), "line 5: "),
    "a fingerprint": (edited(5, lambda line: line["used_key"].update(fingerprint="../x")), "line 5: fingerprint: "),
    "a NUL": (edited(6, lambda line: line["audit"].update(app="\0")), "line 6: "),
    "wrong counts": (edited(7, lambda line: line["user_end"].update(records=3)), "line 7: must count"),
    "a path for a user": (edited(8, lambda line: line.update(user="\0/etc/passwd")), "line 8: must begin"),
    "users out of order": (package(["bob", "ada"]), "line 8: must begin another user, in order"),
    "no end of a user": (forged(LINES[:4]), "line 4: is the last one"),
    "something else": (edited(4, lambda line: line.update(list(line.items())[::-1], record={})), "line 4: "),
    "no object": (forged([*LINES[:2], b"[" * 10**5 + b"\n"]), "line 3: is nothing"),
    "a bomb in one line": (forged([*LINES[:2], b" " * 10**8 + b"\n"]), "line 3: is longer than"),
    "a bomb of lines": (forged([*LINES[:2], b"\n" * 10**8]), "line 3: is nothing"),
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_what_is_hostile_is_refused_with_its_line_and_nothing_is_written(name: str) -> None:
    data, said = HOSTILE[name]
    shelf = Shelf()
    tracemalloc.start()
    try:
        async with AsyncMemory(shelf) as memory:
            with pytest.raises(PackageError) as refused:
                await restoration(memory, shelf).run(io.BytesIO(data), str, lambda done, total: None)
        assert tracemalloc.get_traced_memory()[1] < 120 * 2**20
    finally:
        tracemalloc.stop()
    assert said in str(refused.value)
    assert len(str(refused.value)) < 300
    assert shelf.records == {}


def restoration(memory: AsyncMemory, shelf: Shelf) -> Restoration:
    return Restoration(memory, shelf, users=(), include_deleted=False, app="test", refuse=lambda line, why: None)


async def test_a_provider_without_snapshots_gives_and_takes_what_its_verbs_do() -> None:
    shelf, other = Shelf(), Shelf()
    async with AsyncMemory(shelf) as memory:
        for user in ("ada", "bob"):
            await memory.add("note", user_id=user, key="k", tags=["t"])
        file = io.BytesIO()
        manifest, end = await back_up(memory, shelf, file, users=(), vectors=True, report=lambda done: None)
    assert (manifest.consistent, end.records, "idempotency keys" in manifest.lacks) == (False, 2, True)
    async with AsyncMemory(other) as memory:
        work = restoration(memory, other)
        await work.run(file, str, lambda done, total: None)
        assert (work.outcomes, other.records) == ({"restored": 2}, shelf.records)
        work = restoration(memory, other)
        await work.run(io.BytesIO(package()), str, lambda done, total: None)
        assert (work.outcomes, work.not_kept) == ({"restored": 4}, {"idempotency key": 2, "audit entry": 2})


class NoUsers(Shelf):
    """A provider that knows the users it is asked about alone, as vendors are."""

    users = Provider.users
    restore = Provider.restore


async def test_a_provider_that_lists_no_users_gives_those_that_are_named_and_takes_nothing() -> None:
    shelf, file = NoUsers(), io.BytesIO()
    async with AsyncMemory(shelf) as memory:
        await memory.add("note", user_id="ada")
        with pytest.raises(UnsupportedCapabilityError, match="--user"):
            await back_up(memory, shelf, io.BytesIO(), users=(), vectors=False, report=lambda done: None)
        _, end = await back_up(memory, shelf, file, users=["ada"], vectors=False, report=lambda done: None)
        assert (end.records, whole(file.getvalue())) == (1, end)
        with pytest.raises(UnsupportedCapabilityError, match="restore"):
            await restoration(memory, shelf).run(file, str, lambda done, total: None)


def sealed(data: bytes, passphrase: str = "right") -> bytes:
    file = io.BytesIO()
    sink = Encrypting(file, passphrase)
    for start in range(0, len(data), 1000):
        sink.write(data[start : start + 1000])
    sink.finish()
    return file.getvalue()


def opened(data: bytes, passphrase: str = "right") -> bytes:
    source, found = decrypted(io.BytesIO(data), lambda: passphrase), b""
    while chunk := source.read(999):
        found += chunk
    return found


def test_an_encrypted_file_opens_with_its_passphrase_and_unchanged_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encryption, "_WORK", 1)
    for size in (0, 1, 2**16 - 1, 2**16, 2**16 + 1, 3 * 2**16):
        data = random.Random(size).randbytes(size)
        assert opened(sealed(data)) == data
    data = sealed(package())
    assert whole(opened(data)).records == 4
    with pytest.raises(PackageError, match="passphrase"):
        opened(data, "wrong")
    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] ^= 1 + place % 255
        for broken in (bytes(changed), data[:place]):
            with pytest.raises(PackageError):
                whole(opened(broken))
    long = sealed(random.Random(1).randbytes(3 * 2**16))
    chunk = 2**16 + 16
    start = len(long) - 3 * chunk
    head, one, two, three = long[:start], *(long[start + n * chunk :][:chunk] for n in range(3))
    for order in ((one, three, two), (two, one, three), (one, two), (one, three), (one, two, two, three)):
        with pytest.raises(PackageError):
            opened(head + b"".join(order))
    hardened = data.replace(b" 1\n", b" 30\n", 1)
    with pytest.raises(PackageError, match="memory"):
        opened(hardened)
