"""Words for keyword search, the same for every store: so that they find and rank alike.

Text becomes *terms*: words are normalised and stemmed (Snowball English, which leaves other languages' words nearly
alone). A term is an integer of 64 bits, the hash of its stem. What words are, in any script, `scripts.py` says.

Beside its words a text is found by *variants* of them. Some say more: with their accents, joined as in `user_id`.
Others say less, and stand in for a word that a memory has in another form only: without its ending, or its article.
"""

from __future__ import annotations

import struct
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from hashlib import blake2b
from itertools import chain
from typing import NamedTuple, TypeVar

import Stemmer

from openproto.stores.scripts import Forms, add_forms, joined, parts, prefixes, split_unicode

T = TypeVar("T")

RULES = 2
"""The version of these rules, which a store keeps: what was indexed by other rules is not found by these."""

# Lower case, and blanks in the place of everything that is in no word.
_ASCII_WORDS = bytes(ord(chr(code).lower()) if chr(code).isalnum() else 32 for code in range(128)) + bytes(128)

MAX_QUERY_TERMS = 40
_MOST_KNOWN_WORDS = 65_536
_MOST_KNOWN_TEXTS = 1_024
_LONGEST_KNOWN_TEXT = 500

_ENGLISH = frozenset(
    """
    the and my with that you your what when where which who how does did from they she this his our their would should
    could about because been were
    """.split()
)
"""Words that show that a text is English: in any other language, endings are taken off as if they were glued on."""

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


class QueryTerms(NamedTuple):
    """What a query is looked up with; no term is in both lists."""

    terms: list[int]
    variants: list[int]
    of: list[int]
    """For each variant that says less, the position among `terms` of what it stands in for; else -1."""


def terms(text: str) -> list[int]:
    """Return the distinct terms of `text` and of the variants of its words."""
    packed = packed_terms(text)
    return list(dict.fromkeys(struct.unpack(f">{len(packed) // 8}Q", packed)))


def term_set(text: str) -> frozenset[int]:
    """Return the terms of `text` as a set, kept for short texts: who ranks here meets the same ones in every search."""
    return (_known_terms if len(text) <= _LONGEST_KNOWN_TEXT else _term_set)(text)


def _term_set(text: str) -> frozenset[int]:
    return frozenset(terms(text))


_known_terms = lru_cache(_MOST_KNOWN_TEXTS)(_term_set)


def packed_terms(text: str) -> bytes:
    """Return the terms of `text` and of the variants of its words, 8 bytes each; a few of them twice."""
    if not text.isascii():
        return b"".join(map(_PACKED.__getitem__, dict.fromkeys(words(text))))
    main = _ascii_words(text)
    packed = _PACKED_BEGINNINGS if _ENGLISH.isdisjoint(main) else _PACKED
    return b"".join([*map(packed.__getitem__, dict.fromkeys(main)), *map(_PACKED.__getitem__, joined(text))])


def query_terms(query: str) -> QueryTerms:
    """Return the terms to look `query` up with: without the words that say nothing, and 40 at most.

    A query of nothing but such words keeps them: "who am I" still deserves its answer. Of a query with more than 40
    others the longest are kept, for long words are the rare ones.
    """
    forms = _forms(query)
    distinct = list(dict.fromkeys(forms.main))
    telling = [word for word in distinct if word not in STOP_WORDS] or distinct
    if len(telling) > MAX_QUERY_TERMS:
        longest = set(sorted(telling, key=len, reverse=True)[:MAX_QUERY_TERMS])
        telling = [word for word in telling if word in longest]
    found = _distinct_terms(telling)
    places = {term: place for place, term in enumerate(found)}
    of = {_TERMS[variant]: -1 for variant in forms.exact}
    for variant, word in forms.loose:
        if variant not in STOP_WORDS and (place := places.get(_TERMS[word], -1)) >= 0:
            of.setdefault(_TERMS[variant], place)
    variants = [(term, place) for term, place in of.items() if term not in places][: MAX_QUERY_TERMS - len(found)]
    return QueryTerms(found, [term for term, _ in variants], [place for _, place in variants])


def words(text: str) -> list[str]:
    """Return the words of `text` in order, normalised but not stemmed, and behind them their variants.

    One that is not in ASCII alone may stand there once for all its places.
    """
    found, begun = begun_words(text)
    return [*found, *prefixes(*begun)]


def begun_words(text: str) -> tuple[list[str], list[str]]:
    """Return what `words` does but for beginnings of words, and the words whose beginnings it has as well."""
    if text.isascii():
        main = _ascii_words(text)
        return [*main, *joined(text)], main if _ENGLISH.isdisjoint(main) else []
    found = split_unicode(text)
    forms = _forms(text, found)
    singles = chain.from_iterable(map(parts, found))
    return [*forms.main, *forms.exact, *(variant for variant, _ in forms.loose), *singles], []


def plain_words(text: str) -> list[str]:
    """Return the words of `text` in order, without their variants."""
    return _forms(text).main


def _forms(text: str, found: Sequence[str] | None = None) -> Forms:
    """Return the forms of a text, whose words are `found`, where they are known and it is not ASCII."""
    if text.isascii():
        forms = Forms(_ascii_words(text), joined(text), [])
    else:
        forms = Forms([], joined(unicodedata.normalize("NFC", text)), [])
        for word in split_unicode(text) if found is None else found:
            if word.isascii():
                forms.main.append(word)
            else:
                add_forms(word, forms)
    if _ENGLISH.isdisjoint(forms.main):
        forms.loose.extend((prefix, word) for word in forms.main if word.isascii() for prefix in prefixes(word))
    return forms


def _ascii_words(text: str) -> list[str]:
    """Return the words of a text as most are: a table takes a third of the time of a regular expression."""
    return text.encode().translate(_ASCII_WORDS).decode().split()


def _distinct_terms(words: Iterable[str]) -> list[int]:
    return list(dict.fromkeys(map(_TERMS.__getitem__, words)))


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
    return int.from_bytes(_packed(word))


def _packed(word: str) -> bytes:
    stem = _stem(word) if word.isascii() else word
    return blake2b(stem.encode(), digest_size=8).digest()


_TERMS = PerWord(term)
_PACKED = PerWord(_packed)
# A look-up for each word of a text takes less time than one for each of its beginnings.
_PACKED_BEGINNINGS = PerWord(lambda word: b"".join([_PACKED[form] for form in (word, *prefixes(word))]))
