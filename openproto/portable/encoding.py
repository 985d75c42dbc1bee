"""Files in whatever encoding they were saved, as UTF-8 that can be read more than once."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from openproto import InvalidRequestError
from openproto.portable.spool import open_private

_CHUNK = 2**20
_BOMS = {codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}


@contextmanager
def as_utf8(file: BinaryIO, *, seekable: bool) -> Iterator[BinaryIO]:
    """Give `file`, or a copy in a nameless file where it cannot be read again or is in UTF-16."""
    head = file.read(4)
    encoding = _BOMS.get(head[:2]) or _guess(head)
    if encoding is None and seekable:
        file.seek(0)
        yield file
        return
    with open_private(None) as copy:
        if encoding is None:
            copy.write(head)
            while chunk := file.read(_CHUNK):
                copy.write(chunk)
        else:
            _decode(file, head, encoding, copy)
        copy.seek(0)
        yield copy


def _guess(head: bytes) -> str | None:
    """Return which UTF-16 a text without a mark is in: every other byte of its first characters is zero."""
    if len(head) == len("ab") * 2 and head[0] and head[2] and not head[1] and not head[3]:
        return "utf-16-le"
    return "utf-16-be" if len(head) == len("ab") * 2 and not head[0] and not head[2] and head[1] and head[3] else None


def _decode(file: BinaryIO, head: bytes, encoding: str, copy: BinaryIO) -> None:
    decoder = codecs.getincrementaldecoder(encoding)()
    try:
        chunk = head
        while chunk:
            copy.write(decoder.decode(chunk).removeprefix("\ufeff").encode())
            chunk = file.read(_CHUNK)
        copy.write(decoder.decode(b"", final=True).encode())
    except UnicodeError:
        raise InvalidRequestError(
            "the file begins as UTF-16 does and is not UTF-16 to its end; it was cut, or saved wrongly: save it anew"
        ) from None
