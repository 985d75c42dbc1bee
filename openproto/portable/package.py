"""The package: a whole store, or some of its users, in one file that any program can read (docs/backup.md).

Lines of JSON behind each other, compressed as gzip. The first line is the manifest; a user's lines stand between one
that begins the user and one that counts them; the last line counts everything. It also holds two digests: of all lines
before it, and of all bytes of the file before the gzip member that is its own, so that not even a bit that changes no
line goes unnoticed.
"""

from __future__ import annotations

import json
import zlib
from collections import Counter
from collections.abc import Iterator
from hashlib import sha256
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from openproto import AuditEntry, MemoryInput, MemoryRecord
from openproto.models import StoredRecord, UsedKey, UserPart

FORMAT = 1

LONGEST = 32 * 2**20
"""Bytes in a line: content at its longest, every character escaped, and a great deal of extensions."""

GZIP = b"\x1f\x8b"
"""How a file begins that is compressed as gzip."""

MOST_IN_A_USER, MOST_IN_A_TEXT = 256, 512
"""Characters in a user's id and in an idempotency key, and in ids, scopes, and names."""

_CHUNK = 2**16
_GZIP_HEADER = GZIP + b"\x08\x00\x00\x00\x00\x00\x00\xff"  # without a name, a date, or a system, which would differ
_LONGEST_END = 4096
_INPUT = ("content", "user_id", "scope", "tags", "source", "confidence", "valid_from", "valid_to", "supersedes", "key")

M = TypeVar("M", bound=BaseModel)


class PackageError(ValueError):
    """The file is not a whole package that this version can read; the text says where and why."""


class Source(Protocol):
    """What a package is read from."""

    def read(self, size: int, /) -> bytes:
        """Return the next bytes, at most `size`, and none at the end."""
        ...


class Sink(Protocol):
    """What a package is written to."""

    def write(self, data: bytes, /) -> object:
        """Take the next bytes."""


class Manifest(BaseModel):
    """The first line: what the package holds."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, validate_by_name=True, serialize_by_alias=True)

    format: Literal[1] = Field(default=1, alias="openproto-package")
    made_by: str
    provider: str
    made_at: str
    users: list[str] | Literal["all"]
    consistent: bool
    """Whether everything is of one moment, whatever others wrote meanwhile."""
    holds: list[str]
    lacks: list[str]
    """What the store may have held and the package does not, in words."""
    model: str | None
    """The model of the vectors in it."""


class Counts(BaseModel):
    """How many of each kind."""

    records: int = 0
    keys: int = 0
    audit: int = 0


class End(Counts):
    """The last line."""

    users: int
    lines: int
    """All lines before this one."""
    sha256: str
    """Of all lines before this one, line breaks included."""
    file_sha256: str
    """Of all bytes of the file before the gzip member that holds this line."""


class Entry(NamedTuple):
    """One thing that a package holds of a user."""

    line: int
    user_id: str
    item: StoredRecord | UsedKey | AuditEntry
    size: int


class Writer:
    """Writes a package to `sink`, part by part."""

    def __init__(self, sink: Sink, manifest: Manifest) -> None:
        self._sink = sink
        self._deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        self._lines, self._file = sha256(), sha256()
        self._crc = self._size = self._count = 0
        self._total: Counter[str] = Counter()
        self._of_user: Counter[str] = Counter()
        self._put(_GZIP_HEADER)
        self._line(manifest.model_dump_json(by_alias=True))

    @property
    def records(self) -> int:
        """How many records were written so far."""
        return self._total["records"] + self._of_user["records"]

    def begin(self, user_id: str) -> None:
        """Begin a user."""
        self._of_user.clear()
        self._line(_json({"user": user_id}))

    def add(self, part: UserPart) -> None:
        """Write a part of the user that was begun."""
        for record in part.records:
            self._line(record.model_dump_json())
        for key in part.keys:
            self._line(f'{{"used_key":{key.model_dump_json()}}}')
        for entry in part.audit:
            self._line(f'{{"audit":{entry.model_dump_json()}}}')
        self._of_user.update(records=len(part.records), keys=len(part.keys), audit=len(part.audit))

    def end(self) -> None:
        """End the user, with the numbers that there are of each kind."""
        self._line(_json({"user_end": Counts(**self._of_user).model_dump()}))
        self._total.update(self._of_user, users=1)
        self._of_user.clear()

    def finish(self) -> End:
        """Write the last line and return it."""
        self._put(self._deflate.flush())
        self._put(self._crc.to_bytes(4, "little") + (self._size % 2**32).to_bytes(4, "little"))
        end = _end(self._total, self._count, self._lines.hexdigest(), self._file.hexdigest())
        self._sink.write(_sealed(end))
        return end

    def _line(self, text: str) -> None:
        line = text.encode() + b"\n"
        self._count += 1
        self._lines.update(line)
        self._crc = zlib.crc32(line, self._crc)
        self._size += len(line)
        self._put(self._deflate.compress(line))

    def _put(self, data: bytes) -> None:
        self._file.update(data)
        self._sink.write(data)


class Reader:
    """Reads a package from its start; the memory that it takes is bounded, whatever the file holds.

    With `thorough`, each record is also held against the limits of the protocol, which a store does when it takes it.
    """

    def __init__(self, source: Source, *, thorough: bool = False) -> None:
        self._lines = _Lines(source)
        self._thorough = thorough
        number, raw = next(self._lines, (1, b""))
        self.manifest = _manifest(number, raw)

    def entries(self) -> Iterator[Entry]:
        """Yield what it holds, and raise PackageError at the first line that is wrong, or where it was changed."""
        user: str | None = None
        last = ""
        number = 1
        here: Counter[str] = Counter()
        total: Counter[str] = Counter()
        for number, raw in self._lines:
            if user is None:
                user = _member(number, raw, "user")
                if not (isinstance(user, str) and user.strip() and _is_text(user, MOST_IN_A_USER) and user > last):
                    raise _broken(number, "must begin another user, in order")
                last = user
                total["users"] += 1
            elif raw.startswith(b'{"user_end"'):
                counted = _parsed(Counts, number, _json(_member(number, raw, "user_end")).encode())
                if counted != Counts(**here):
                    raise _broken(number, "must count the lines of the user, and does not")
                total.update(here)
                here.clear()
                user = None
            else:
                kind, item = self._item(number, raw, user)
                here[kind] += 1
                yield Entry(number, user, item, len(raw))
        self._check_end(number if user else None, total)

    def _item(self, number: int, raw: bytes, user: str) -> tuple[str, StoredRecord | UsedKey | AuditEntry]:
        if raw.startswith(b'{"record":'):
            stored = _parsed(StoredRecord, number, raw)
            if stored.record.user_id != user:
                raise _broken(number, "the record belongs to another user than those around it")
            if self._thorough:
                _check_limits(number, stored.record)
            return "records", stored
        if raw.startswith(b'{"used_key":') and raw.endswith(b"}\n"):
            key = _parsed(UsedKey, number, raw[len(b'{"used_key":') : -2])
            if not (_is_text(key.idempotency_key, MOST_IN_A_USER) and _is_text(key.record_id, MOST_IN_A_TEXT)):
                raise _broken(number, "the idempotency key is longer than one may be")
            return "keys", key
        if raw.startswith(b'{"audit":') and raw.endswith(b"}\n"):
            entry = _parsed(AuditEntry, number, raw[len(b'{"audit":') : -2])
            if entry.user_id != user:
                raise _broken(number, "the entry belongs to another user than those around it")
            texts = (entry.app, entry.action, entry.memory_id, entry.scope, entry.request_id)
            if not all(text is None or _is_text(text, MOST_IN_A_TEXT) for text in texts):
                raise _broken(number, "a text of the entry is longer than it may be")
            return "audit", entry
        raise _broken(number, "is nothing that a package may hold here")

    def _check_end(self, within: int | None, total: Counter[str]) -> None:
        if within is not None:
            raise _broken(within, "is the last one and is not the end of a user: it was cut")
        found = self._lines.end(total)
        if found != self._lines.last:
            raise _broken(found.lines + 1, "its digests are of another file: this one was changed")
        self.counts = found


class _Lines(Iterator[tuple[int, bytes]]):
    """The lines of the first gzip member, numbered; `last` is the line in the second, once the first is read."""

    last: End

    def __init__(self, source: Source) -> None:
        self._source = source
        self._text = self._inflated()
        self._waiting: Iterator[bytes] = iter(())
        self._rest = bytearray()
        self._number = 0
        self._digest, self._file = sha256(), sha256()

    def __next__(self) -> tuple[int, bytes]:
        while (line := next(self._waiting, None)) is None:
            try:
                chunk = next(self._text)
            except StopIteration:
                if self._rest:
                    raise _broken(self._number + 1, "has no end: the file was cut") from None
                raise
            except zlib.error:
                raise _broken(self._number + 1, "the compressed data is damaged from here") from None
            self._digest.update(chunk)
            self._rest += chunk
            if b"\n" in chunk:
                *lines, rest = self._rest.split(b"\n")
                self._waiting, self._rest = (bytes(line) + b"\n" for line in lines), rest
            elif len(self._rest) > LONGEST:
                raise _broken(self._number + 1, f"is longer than {LONGEST} bytes, which none may be")
        self._number += 1
        return self._number, line

    def end(self, total: Counter[str]) -> End:
        """Return what the last line must be."""
        return _end(total, self._number, self._digest.hexdigest(), self._file.hexdigest())

    def _inflated(self) -> Iterator[bytes]:
        chunk = self._source.read(len(_GZIP_HEADER))
        if chunk != _GZIP_HEADER:
            raise PackageError("the file is not a package of openproto: name one that `openproto backup` wrote")
        inflate = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
        waiting = chunk
        while not inflate.eof:
            # A little at a time: what is compressed a thousandfold must not fill the memory.
            if text := inflate.decompress(waiting, _CHUNK):
                yield text
            waiting = inflate.unconsumed_tail
            if not waiting and not inflate.eof:
                self._file.update(chunk)
                chunk = waiting = self._source.read(_CHUNK)
                if not chunk:
                    raise _broken(self._number + 1, "the file was cut here")
        rest = inflate.unused_data
        self._file.update(chunk[: len(chunk) - len(rest)])
        while len(rest) <= _LONGEST_END and (more := self._source.read(_CHUNK)):
            rest += more
        self.last = _unsealed(rest)


def _end(total: Counter[str], lines: int, digest: str, file_digest: str) -> End:
    counts = {name: total[name] for name in ("records", "keys", "audit", "users")}
    return End.model_validate({**counts, "lines": lines, "sha256": digest, "file_sha256": file_digest})


def _sealed(end: End) -> bytes:
    """Return the last line as a gzip member: stored, not compressed, so that it can be spelled in one way alone."""
    line = (_json({"end": end.model_dump()}) + "\n").encode()
    size = len(line).to_bytes(2, "little")
    block = b"\x01" + size + bytes(255 - byte for byte in size) + line
    return _GZIP_HEADER + block + zlib.crc32(line).to_bytes(4, "little") + len(line).to_bytes(4, "little")


def _unsealed(data: bytes) -> End:
    start, end = len(_GZIP_HEADER) + 5, -8
    try:
        found = End.model_validate(json.loads(data[start:end])["end"])
        if data == _sealed(found):
            return found
    except (ValueError, LookupError, TypeError, RecursionError):
        pass
    raise PackageError("the last line is missing or damaged: the file was cut or changed; use another copy of it")


def _broken(line: int, reason: str) -> PackageError:
    return PackageError(f"line {line}: {reason}; use another copy of the file")


def _manifest(number: int, raw: bytes) -> Manifest:
    version = _member(number, raw, "openproto-package")
    if type(version) is int and version > FORMAT:
        raise PackageError(
            f"the package has format {version} of a newer openproto, and this one reads {FORMAT}: upgrade openproto"
        )
    return _parsed(Manifest, number, raw)


def _member(number: int, raw: bytes, name: str) -> Any:
    """Return the first member of the object on a line, which must have that name."""
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError):
        found = None
    if not (isinstance(found, dict) and next(iter(found), None) == name):
        raise _broken(number, f"must be an object that begins with {name!r}")
    return found[name]


def _parsed(model: type[M], number: int, raw: bytes) -> M:
    try:
        return model.model_validate_json(raw)
    except ValidationError as error:
        raise _broken(number, explain(error)) from None


def _check_limits(number: int, record: MemoryRecord) -> None:
    fields = {name: value for name in _INPUT if (value := getattr(record, name)) not in (None, [])}
    try:
        MemoryInput.model_validate(fields | record.extensions)
    except ValidationError as error:
        raise _broken(number, explain(error)) from None


def _is_text(text: str, most: int) -> bool:
    return len(text) <= most and "\0" not in text


def explain(error: ValidationError) -> str:
    """Say what is wrong, without the value, which is memory content."""
    faults = error.errors(include_url=False, include_input=False, include_context=False)
    said = [f"{fault['loc'][0]}: {fault['msg']}" if fault["loc"] else fault["msg"] for fault in faults[:3]]
    return "; ".join(dict.fromkeys(said))


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
