"""Words for keyword search, the same for every store: so that they find and rank alike.

Text becomes *terms*: words are NFKC-normalised, casefolded, stripped of accents and stemmed (Snowball English, which
leaves other languages' words nearly alone); scripts that write no spaces become overlapping pairs of characters. A
term is kept as 64 bits, a hash of the word XORed with a hash of the user: an index over terms then holds each user's
words apart from everybody else's, and a look-up touches only that user's entries.
"""

from __future__ import annotations

import re
import struct
import unicodedata
from functools import lru_cache
from hashlib import blake2b

import Stemmer

_WORD = re.compile(r"[^\W_]+", re.UNICODE)
# Han, kana, Thai, Lao, Myanmar, Khmer: written without spaces between words.
_UNSPACED = re.compile("([\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]+)")
_ACCENT = re.compile("[\u0300-\u036f]")

_INT64 = struct.Struct("<q")
_stem = Stemmer.Stemmer("english").stemWord


def user_terms(user_id: str, text: str) -> list[int]:
    """Return the distinct terms of `text` as signed 64-bit integers, for the index entries of `user_id`."""
    user = _hash(f"user:{user_id}")
    return [user ^ word for word in {_word_hash(word) for word in words(text)}]


def words(text: str) -> list[str]:
    """Return the words of `text` in order, normalised but not stemmed."""
    if not text.isascii():
        # Decomposed, so that accents can be dropped; the marks of Indic scripts are letters' parts and stay.
        text = unicodedata.normalize("NFC", _ACCENT.sub("", unicodedata.normalize("NFKD", text)))
    found = _WORD.findall(text.casefold())
    if text.isascii():
        return found
    return [piece for word in found for piece in _pieces(word)]


def _pieces(word: str) -> list[str]:
    pieces: list[str] = []
    for run in _UNSPACED.split(word):
        if len(run) > 2 and _UNSPACED.match(run):
            pieces.extend(run[i : i + 2] for i in range(len(run) - 1))
        elif run:
            pieces.append(run)
    return pieces


@lru_cache(maxsize=65_536)
def _word_hash(word: str) -> int:
    return _hash(f"word:{_stem(word) if word.isascii() else word}")


@lru_cache(maxsize=4_096)
def _hash(text: str) -> int:
    value: int = _INT64.unpack(blake2b(text.encode(), digest_size=8).digest())[0]
    return value
