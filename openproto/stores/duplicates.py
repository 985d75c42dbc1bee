"""What an `add` does that says again what the user has said before: the measure, and the decision.

A memory is a duplicate of a current one of the same user in exactly the same scope when both texts are equal once they
are in Unicode's form NFKC and casefolded, runs of blanks are one blank, and full stops and exclamation marks at the end
are left out. Nothing nearer to a guess than that: what is skipped or superseded by mistake is lost to recall.

Vectors decide nothing here, because no bound on their cosine does. Of pairs of sentences that say the same the local
embedder gave .77 to .99, MiniLM .87 to .99; of pairs such as "I like tea" and "I don't like tea", of two months, two
numbers, or "Ada owes Bob" and "Bob owes Ada", up to 1.00 and .99. An extractor that reads both is what can tell.

Each store finds the candidates in its own way, and holds whatever keeps others from writing the same until it has
written what is decided here.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from openproto.models import MemoryRecord
from openproto.requests import MemoryInput

_ENDS = " .!\u3002\u0964\u06d4"  # in the scripts of China and Japan, of India, and of Urdu


def plain(content: str) -> str:
    """Return what two texts share exactly when they say the same."""
    folded = " ".join(unicodedata.normalize("NFKC", content).casefold().split())
    return folded.rstrip(_ENDS) or folded


def decide(item: MemoryInput, candidates: Iterable[MemoryRecord]) -> MemoryInput | MemoryRecord:
    """Return the input to write, or the record to answer with where nothing is to be written.

    `candidates` are current records of the user, newest first. "skip" writes all the same what has a key or supersedes
    another record, because only writing it does what it asks for.
    """
    said = plain(item.content)
    same = [record for record in candidates if record.scope == item.scope and plain(record.content) == said]
    if item.on_duplicate == "supersede":
        return item.superseding(record.id for record in same)
    if same and item.key is None and not item.supersedes:
        return same[0].model_copy(update={"duplicate_of": same[0].id})
    return item.superseding(())
