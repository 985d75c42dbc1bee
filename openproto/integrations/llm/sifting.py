"""What of a turn is worth keeping where no extractor decides: what the user stated, not what the user asked.

Questions, requests, and greetings add nothing to a memory; worse, a stored question is the best hit for itself. Nor do
replies that repeat what was recalled into their prompt. The rules are plain and know the marks of many scripts, and
the words of English.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Literal, TypeAlias

from openproto.stores.words import STOP_WORDS, plain_words, term

Role: TypeAlias = Literal["user", "assistant"]
Keep: TypeAlias = Literal["user", "both"] | Callable[[Role, str], bool]

ECHO = 0.8
"""The share of a reply's words that what was recalled holds, from which on the reply is an echo of it."""

TAG = "recalled_memories"
_BLOCK = re.compile(rf"<\s*{TAG}\s*>.*?(?:<\s*/\s*{TAG}\s*>|\Z)", re.IGNORECASE | re.DOTALL)
# All but tabs and line ends, which lay text out; PostgreSQL takes no NUL, and UTF-8 no lone surrogate.
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")

_SENTENCE = re.compile(
    r"[^.!?。！？؟⸮…\n]+(?:[.!?。！？؟⸮…]+(?=\s|$|[^\x00-\x7f])|[.!?]+(?=\S)[^.!?。！？؟⸮…\n]*)*[\"'”’」』)]*"
)
_ASKED = re.compile(r"(?:[?？؟⸮\u037e]|[吗呢か][。.]?)[\s.!\"'”’」』)]*$|՞")
_GREEK = re.compile("[\u0370-\u03ff]")
_STARTS = re.compile(
    r"""[\s"'(¿¡*-]*(?:(?:please|so|and|but|ok|okay|hey|hi|hello|now|well)[,\s]+)*(?:
        (?:what|who|whom|whose|when|where|why|how|which)(?:'s|’s|'re|’re)?\b(?!ever)
        | (?:do|does|did|can|could|would|will|should|shall|may|might|have|has|is|are|am|was|were)\s
          (?:you|we|i|he|she|it|they|there|this|that|my|the|your|our)\b
        | (?:tell|show|give|list|explain|describe|summari[sz]e|translate|suggest|recommend|write|draft|compose|plan
            |find|search|generate|create|make|help|remind|repeat|compare|calculate|define|fix|rewrite|answer|say
            |let's|let\sus)\b(?!-|\s(?:is|are|was)\b)
        | i(?:'d|\swould)?\s(?:wonder|(?:like|want|need)\sto\sknow)\b
    )""",
    re.IGNORECASE | re.VERBOSE,
)
# A statement inside a question is a clause of it: "any ideas for dinner, I'm vegetarian?"
_BREAK = re.compile(r"[,;:—–]\s+")
_CLAUSE = re.compile(
    r"(?:(?:because|since|as|and|but|so|now)\s+)?(?:(?:i|we)(?:['’](?:m|ve|re))?\s|my\s\w+(?:\s\w+)?\s(?:is|are|was|has)\b)",
    re.IGNORECASE,
)
_FILLERS = STOP_WORDS | frozenset(
    """
    thanks thank ok okay yes yep yeah nope hello hi hey please great good morning afternoon evening night bye goodbye
    sure cool nice right fine perfect welcome sorry awesome lol haha hmm oh ah wow alright understood got it
    """.split()
)


def clean(text: str) -> str:
    """Return what a person wrote: without control characters, and without blocks of recalled memories."""
    return _CONTROL.sub("", _BLOCK.sub("", text))


def statements(text: str) -> str:
    """Return the sentences of `text` that state something; nothing where it only asks, greets, or thanks."""
    sentences = [stripped for sentence in _SENTENCE.findall(text) if (stripped := sentence.strip())]
    stated = [_stated(sentence) for sentence in sentences]
    return text if stated == sentences else " ".join(filter(None, stated))


def adds_nothing(reply: str, known: str) -> bool:
    """Say whether the words of `reply` are nearly all among those of `known`: what was recalled or said before."""
    telling = _telling(reply)
    return bool(telling) and len(telling.intersection(map(term, plain_words(known)))) >= ECHO * len(telling)


def _stated(sentence: str) -> str:
    asks = _ASKED.search(sentence) or (sentence.endswith(";") and _GREEK.search(sentence)) or _STARTS.match(sentence)
    if asks:
        clauses = [
            clause
            for clause in _BREAK.split(sentence.rstrip("?？؟ "))
            if _CLAUSE.match(clause) and not _STARTS.match(clause)
        ]
        return ", ".join(clauses)
    return sentence if _telling(sentence) else ""


def _telling(text: str) -> set[int]:
    return {term(word) for word in plain_words(text) if word not in _FILLERS}
