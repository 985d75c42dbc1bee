"""Words for keyword search, the same for every store: so that they find and rank alike.

Text becomes *terms*: words are normalised (NFKC, case folded, accents dropped) and stemmed (Snowball English, which
leaves other languages' words nearly alone); scripts that write no spaces become overlapping pairs of characters. A
term is an integer of 64 bits, the hash of its stem.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable
from hashlib import blake2b
from typing import TypeVar

import Stemmer

T = TypeVar("T")

_WORD = re.compile(r"[^\W_]+", re.UNICODE)
# Lower case, and blanks in the place of everything that is in no word.
_ASCII_WORDS = bytes(ord(chr(code).lower()) if chr(code).isalnum() else 32 for code in range(128)) + bytes(128)
# Han, kana, Thai, Lao, Myanmar, Khmer: written without spaces between words.
_UNSPACED = re.compile("([\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]+)")
_ACCENT = re.compile("[\u0300-\u036f]")

MAX_QUERY_TERMS = 40
_MOST_KNOWN_WORDS = 65_536

STOP_WORDS = frozenset(
    """
    a an the and but or nor if so than that because as until while though
    i me my mine myself we us our ours ourselves you your yours yourself yourselves he him his himself she her hers
    herself it its itself they them their theirs themselves this these those
    what which who whom whose when where why how
    am is are was were be been being have has had having do does did doing will would can could shall should may might
    must just don t s not no only own same such too very
    of at by for with about against between into through during before after above below to from up down in out on off
    over under again further then once here there now all any both each few more most other some
    """.split()
)
"""English words that tie a sentence together; measured to hurt retrieval when a query is matched by them."""

_stem = Stemmer.Stemmer("english").stemWord


def terms(text: str) -> list[int]:
    """Return the distinct terms of `text`, in order."""
    return _distinct_terms(words(text))


def query_terms(query: str) -> list[int]:
    """Return the terms to look `query` up with: without the words that say nothing, and 40 at most.

    A query of nothing but such words keeps them: "who am I" still deserves its answer. Of a query with more than 40
    others the longest are kept, for long words are the rare ones.
    """
    distinct = list(dict.fromkeys(words(query)))
    telling = [word for word in distinct if word not in STOP_WORDS] or distinct
    if len(telling) > MAX_QUERY_TERMS:
        longest = set(sorted(telling, key=len, reverse=True)[:MAX_QUERY_TERMS])
        telling = [word for word in telling if word in longest]
    return _distinct_terms(telling)


def words(text: str) -> list[str]:
    """Return the words of `text` in order, normalised but not stemmed."""
    if text.isascii():
        # Most texts are: a table takes a third of the time of a regular expression.
        return text.encode().translate(_ASCII_WORDS).decode().split()
    # Decomposed, so that accents can be dropped; the marks of Indic scripts are letters' parts and stay.
    text = unicodedata.normalize("NFC", _ACCENT.sub("", unicodedata.normalize("NFKD", text)))
    return [piece for word in _WORD.findall(text.casefold()) for piece in _pieces(word)]


def _distinct_terms(words: Iterable[str]) -> list[int]:
    return list(dict.fromkeys(map(_TERMS.__getitem__, words)))


def _pieces(word: str) -> list[str]:
    pieces: list[str] = []
    for run in _UNSPACED.split(word):
        if len(run) > 2 and _UNSPACED.match(run):
            pieces.extend(run[i : i + 2] for i in range(len(run) - 1))
        elif run:
            pieces.append(run)
    return pieces


class PerWord(dict[str, T]):
    """What `work_out` says of each word, kept from when it first occurs.

    Emptied when full: which word was used last is not worth knowing, for keeping it up costs more than looking up.
    """

    def __init__(self, work_out: Callable[[str], T]) -> None:
        super().__init__()
        self._work_out = work_out

    def __missing__(self, word: str) -> T:
        if len(self) >= _MOST_KNOWN_WORDS:
            self.clear()
        value = self[word] = self._work_out(word)
        return value


def term(word: str) -> int:
    """Return the term of a normalised word."""
    stem = _stem(word) if word.isascii() else word
    return int.from_bytes(blake2b(stem.encode(), digest_size=8).digest())


_TERMS = PerWord(term)
