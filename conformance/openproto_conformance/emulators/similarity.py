"""How well a text answers a query, by the words they share: the same for every emulator, and the same in every run."""

from __future__ import annotations

from openproto.stores.words import query_terms, terms

UNRELATED = 0.05
"""A vector search finds everything a little similar, and so do the emulators."""


def similarity(query: str, text: str) -> float:
    """Return a score in (0, 1]: 1 for the same words, more the more of the query's words the text has.

    Assumed: the vendors' models know meanings, this knows words; only the order of clear cases is alike.
    """
    wanted, found = set(query_terms(query).terms), set(terms(text))
    if not wanted:
        return 1.0 if query.strip() and query.strip() in text else UNRELATED
    shared = len(wanted & found)
    if not shared:
        return UNRELATED
    covered = shared / len(wanted)
    alike = len(found & set(terms(query))) / len(found | set(terms(query)))
    return UNRELATED + (1 - UNRELATED) * (0.75 * covered + 0.25 * alike)
