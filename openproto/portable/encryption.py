"""Encryption by a passphrase: the format of the program `age`, which can decrypt what is written here.

A key made by scrypt wraps a key made at random, of which another one is made for the content. That goes in chunks of
64 KiB under ChaCha20-Poly1305, whose nonces hold the chunk's number and whether it is the last one: chunks that were
swapped, left out, or cut off do not open.
"""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from collections.abc import Callable
from importlib import import_module
from os import urandom
from typing import Any, BinaryIO

from openproto.portable.package import PackageError, Sink, Source

MAGIC = b"age-encryption.org/v1\n"

_CHUNK, _TAG = 2**16, 16
_WORK = 16  # 64 MiB and a quarter of a second
_MOST_WORK = 18  # what `age` itself takes; 256 MiB
_LONGEST_HEADER = 4096


def decrypted(file: BinaryIO, ask: Callable[[], str]) -> Source:
    """Return what `file` holds from its start on, decrypted with the passphrase that `ask` returns where it must be."""
    file.seek(0)
    if file.read(len(MAGIC)) == MAGIC:
        return Decrypting(file, ask())
    file.seek(0)
    return file


class Encrypting:
    """A sink whose bytes go on to `sink` encrypted; `finish` ends it."""

    def __init__(self, sink: Sink, passphrase: str) -> None:
        self._sink = sink
        salt, file_key = urandom(16), urandom(16)
        wrapped = _cipher(_wrapping_key(passphrase, salt, _WORK)).encrypt(bytes(12), file_key, None)
        stanza = b"-> scrypt %s %d\n%s\n---" % (_base64(salt), _WORK, _base64(wrapped))
        nonce = urandom(16)
        sink.write(MAGIC + stanza + b" " + _base64(_mac(file_key, MAGIC + stanza)) + b"\n" + nonce)
        self._chunks = _Chunks(file_key, nonce)
        self._waiting = bytearray()

    def write(self, data: bytes) -> None:
        """Take bytes; those of a full chunk are passed on once it is known not to be the last."""
        self._waiting += data
        while len(self._waiting) > _CHUNK:
            self._sink.write(self._chunks.seal(bytes(self._waiting[:_CHUNK]), is_last=False))
            del self._waiting[:_CHUNK]

    def finish(self) -> None:
        """Write the last chunk."""
        self._sink.write(self._chunks.seal(bytes(self._waiting), is_last=True))


class Decrypting:
    """What `Encrypting` or `age -p` wrote, decrypted; it stands behind `MAGIC` in `source`."""

    def __init__(self, source: Source, passphrase: str) -> None:
        self._source = source
        self._ahead = b""
        header = self._header()
        try:
            stanza, wrapped_text, mac_text = header.split(b"\n")
            arrow, kind, salt_text, work = stanza.split(b" ")
            salt, wrapped, mac = map(_unbase64, (salt_text, wrapped_text, mac_text.removeprefix(b"--- ")))
            if (arrow, kind) != (b"->", b"scrypt") or not mac_text.startswith(b"--- ") or len(salt) != 16:
                raise ValueError
            if work != b"%d" % int(work):
                raise ValueError
        except ValueError:
            raise PackageError(
                "the file is not encrypted with a passphrase, or was changed: open it with the program that made it"
            ) from None
        if not 1 <= int(work) <= _MOST_WORK:
            raise PackageError(
                f"the passphrase is hardened 2**{int(work)} times, and at most 2**{_MOST_WORK} are taken, for the "
                "memory that it costs: decrypt the file with `age` first"
            )
        file_key = _open(_cipher(_wrapping_key(passphrase, salt, int(work))), bytes(12), wrapped)
        if file_key is None:
            raise PackageError("the passphrase is not the file's, or the file was changed: try the right one")
        if mac != _mac(file_key, MAGIC + header[: header.rindex(b"---") + 3]):
            raise _damaged()
        self._chunks = _Chunks(file_key, self._take(16))
        self._plain = b""
        self._ended = False

    def read(self, size: int, /) -> bytes:
        """Return the next bytes, at most `size`; PackageError where the file was cut or changed."""
        while not self._plain and not self._ended:
            chunk = self._take(_CHUNK + _TAG)
            self._ended = not self._peek()
            opened = self._chunks.open(chunk, is_last=self._ended)
            if opened is None:
                raise _damaged()
            self._plain = opened
        found, self._plain = self._plain[:size], self._plain[size:]
        return found

    def _header(self) -> bytes:
        """Return the lines of the header without the last line break; what is read beyond them waits."""
        while (end := self._ahead.find(b"\n", self._ahead.find(b"\n--- ") + 1)) < 0 or b"\n--- " not in self._ahead:
            more = self._source.read(512)
            if not more or len(self._ahead) > _LONGEST_HEADER:
                raise _damaged()
            self._ahead += more
        header, self._ahead = self._ahead[:end], self._ahead[end + 1 :]
        return header

    def _take(self, size: int) -> bytes:
        while len(self._ahead) < size and (more := self._source.read(size)):
            self._ahead += more
        taken, self._ahead = self._ahead[:size], self._ahead[size:]
        return taken

    def _peek(self) -> bytes:
        if not self._ahead:
            self._ahead = self._source.read(1)
        return self._ahead


class _Chunks:
    """Seals or opens the chunks of one file, in order."""

    def __init__(self, file_key: bytes, nonce: bytes) -> None:
        self._cipher = _cipher(_derived(file_key, salt=nonce, info=b"payload"))
        self._number = 0

    def seal(self, plain: bytes, *, is_last: bool) -> bytes:
        sealed: bytes = self._cipher.encrypt(self._nonce(is_last), plain, None)
        return sealed

    def open(self, sealed: bytes, *, is_last: bool) -> bytes | None:
        return _open(self._cipher, self._nonce(is_last), sealed)

    def _nonce(self, is_last: bool) -> bytes:
        self._number += 1
        return (self._number - 1).to_bytes(11, "big") + bytes([is_last])


def _damaged() -> PackageError:
    return PackageError("the encrypted file was cut or changed; use another copy of it")


def _wrapping_key(passphrase: str, salt: bytes, work: int) -> bytes:
    scrypt = _library("primitives.kdf.scrypt").Scrypt
    kdf = scrypt(salt=b"age-encryption.org/v1/scrypt" + salt, length=32, n=2**work, r=8, p=1)
    key: bytes = kdf.derive(passphrase.encode())
    return key


def _derived(file_key: bytes, *, salt: bytes | None, info: bytes) -> bytes:
    sha256 = _library("primitives.hashes").SHA256()
    key: bytes = _library("primitives.kdf.hkdf").HKDF(sha256, 32, salt, info).derive(file_key)
    return key


def _mac(file_key: bytes, header: bytes) -> bytes:
    hmac = _library("primitives.hmac").HMAC(
        _derived(file_key, salt=None, info=b"header"), _library("primitives.hashes").SHA256()
    )
    hmac.update(header)
    mac: bytes = hmac.finalize()
    return mac


def _cipher(key: bytes) -> Any:
    return _library("primitives.ciphers.aead").ChaCha20Poly1305(key)


def _open(cipher: Any, nonce: bytes, sealed: bytes) -> bytes | None:
    try:
        plain: bytes = cipher.decrypt(nonce, sealed, None)
    except _library("exceptions").InvalidTag:
        return None
    return plain


def _library(name: str) -> Any:
    try:
        return import_module(f"cryptography.{'hazmat.' if name != 'exceptions' else ''}{name}")
    except ImportError as error:
        raise ImportError("encrypted packages need a further library: pip install 'openproto[encryption]'") from error


def _base64(data: bytes) -> bytes:
    return b64encode(data).rstrip(b"=")


def _unbase64(text: bytes) -> bytes:
    """Return what the text spells; ValueError where it is not how `_base64` spells it."""
    try:
        data = b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except binascii.Error as error:
        raise ValueError from error
    if _base64(data) != text:
        raise ValueError
    return data
