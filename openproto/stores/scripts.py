"""The forms under which a word is kept: one that it is found by in any case, and others that say more or less.

Unicode's general categories (UAX #44) say what belongs to a word, its normalisation form NFKC (UAX #15) makes equal
what looks equal, and words end where UAX #29 ends them, with three differences that searching needs: runs of scripts
that write no spaces are cut into overlapping pairs, which takes no dictionary; parts of a joined word (`user_id`,
`3.2`) are words as well; marks that writers may leave out make a second form and not another word.

The standard library's `unicodedata` and `re` do this, with the tables below. `regex` and PyICU are not used: both find
where a word ends, but neither says which marks are optional or what a joined word consists of, and that is most of it.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from itertools import pairwise
from typing import NamedTuple

# Han with the ideographs outside the first plane, and kana; Hangul; Thai, Lao, Burmese, Khmer and their relatives.
_HAN = "\u2e80-\u2fdf\u3005\u3007\u3021-\u3029\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_KANA = "\u3031-\u3035\u3040-\u30ff\u3100-\u312f\u31a0-\u31bf\u31f0-\u31ff"
_HANGUL = "\u1100-\u11ff\u3130-\u318f\uac00-\ud7af"
_STACKED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u1950-\u19df\u1a20-\u1aaf\ua9e0-\ua9ff\uaa60-\uaadf"  # vowels above, below
)
_FLAG = "\U0001f1e6-\U0001f1ff"
_RUN = (
    f"(?P<han>[{_HAN}{_KANA}]+)|(?P<hangul>[{_HANGUL}]+)|(?P<stacked>[{_STACKED}]+)|(?P<flags>[{_FLAG}]+)"
    f"|(?P<word>[^{_HAN}{_KANA}{_HANGUL}{_STACKED}{_FLAG}]+)"
)
_IDEOGRAPH = f"[{_HAN}]"
# Compiled when the first word needs them: that takes as long as a tenth of importing the package.
_compiled = cache(re.compile)
_CLUSTER = re.compile(r"\w\W*|\W+")  # a letter with the marks on it, which `\w` does not hold

# Marks that a writer may leave out: accents (but not those that make й and ї separate letters), Hebrew points,
# Arabic vowel signs.
_ACCENT = re.compile("(?<![\u0438\u0456\u0418\u0406])[\u0300-\u036f]|(?<=[\u0438\u0456])[\u0300\u0301]")
_POINTS = re.compile("[\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0610-\u061a\u064b-\u065f\u0670\u06d6-\u06ed]")
_SAME_LETTER = str.maketrans(
    {"ı": "i", "ø": "o", "ł": "l", "đ": "d", "ð": "d", "æ": "ae", "œ": "oe", "þ": "th", "ى": "ی", "ي": "ی", "ك": "ک"}
)
_ARABIC = re.compile("[\u0620-\u06ff]")
_HEBREW = re.compile("[\u05d0-\u05ea]")
_ARTICLE = re.compile("[\u0648\u0641\u0628\u0643\u06a9]?\u0627\u0644|\u0644\u0644")  # "the", with what may precede it

# Of ASCII alone, in any text: what is typed in code, addresses, and numbers. No part is tried twice, however long.
_JOINED = re.compile(
    r"""(?<!\w)(?a:
        [a-zA-Z]\w*+(?:\+\+|\#)                     # C++, C#
        | (?<!\.)\.[a-zA-Z]\w*+                    # .NET
        | (?<![.,)\]-])[-\u2212]\d++(?:[.,]\d++)*+  # -5
        | [a-zA-Z0-9]\w*+(?:[._@:/+\-]\w++)++       # 3.2, ada@example.org, notes.txt, e-mail
        | [a-zA-Z0-9]++_\w*+                        # user_id
    )(?!\w)""",
    re.VERBOSE,
)
# Most texts have none of these. Each begins with a set of characters, which is what `re` finds fast.
_MAY_JOIN = re.compile(r"[._@:/+#\-\u2212](?:[\w+]|(?<=#))")
_MAY_HAVE_HUMP = re.compile(r"[A-Z](?<=[a-z].)")
_HUMP = re.compile(r"(?<!\w)[a-zA-Z0-9]*[a-z][A-Z][a-zA-Z0-9]*(?!\w)")
_HUMP_PART = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")
_LONGEST_JOINED = 128


class Forms(NamedTuple):
    """What a text is found by."""

    main: list[str]
    """Its words: one form for each, in order."""
    exact: list[str]
    """What says more than one of those words: accents, and words that several of them are together."""
    loose: list[tuple[str, str]]
    """What says less, and the word that it stands for: a beginning, a rest, a character."""


class _Characters(dict[int, str | None]):
    """What each character is to words: itself, a gap, a word alone, or nothing at all."""

    def __missing__(self, code: int) -> str | None:
        character = chr(code)
        category = unicodedata.category(character)
        kept: str | None = " "
        if (category == "Mn" and "\ufe00" <= character <= "\ufe0f") or category == "Me" or character == "\u0640":
            kept = None  # says how the character before it looks; a line that only makes a word longer
        elif category[0] in "LMN" or 0x1F1E6 <= code <= 0x1F1FF:
            kept = character
        elif category == "So":
            kept = f" {character} "
        elif (category == "Cf" and code != 0x200B) or 0x1F3FB <= code <= 0x1F3FF:
            kept = None
        self[code] = kept
        return kept


_CHARACTERS = _Characters()


def split_unicode(text: str) -> list[str]:
    """Return the words of any text, each once, in order and in lower case, runs of unspaced scripts whole."""
    # Once before as well: 𝓐, № and ℃ become capitals. The letters of ™ would be taken for the end of the word.
    folded = unicodedata.normalize("NFKC", text.replace("™", " ")).casefold()
    return list(dict.fromkeys(unicodedata.normalize("NFKC", folded).translate(_CHARACTERS).split()))


def add_forms(word: str, forms: Forms) -> None:
    """Add the forms of a word that is not ASCII."""
    for run in _compiled(_RUN).finditer(word):
        text = run[0]
        match run.lastgroup:
            case "han":
                pairs = _add_pairs(list(text), forms)
                forms.loose.extend(
                    (character, pairs[min(n, len(pairs) - 1)])
                    for n, character in enumerate(text)
                    if len(text) > 1 and _compiled(_IDEOGRAPH).match(character)
                )
            case "stacked":
                _add_pairs(_CLUSTER.findall(text), forms)
            case "hangul":
                pairs = _add_pairs(list(text), forms)
                if len(text) > 1:
                    forms.loose.append((text[0], pairs[0]))
                if len(text) > 2:
                    forms.exact.append(text)
            case "flags":
                forms.main.extend(text[i : i + 2] for i in range(0, len(text), 2))
            case _:
                _add_word(text, forms)


def parts(word: str) -> list[str]:
    """Return what of an unspaced run is indexed although no query asks for it: its single characters."""
    found: list[str] = []
    for run in _compiled(_RUN).finditer(word):
        if run.lastgroup == "han":
            found.extend(run[0])
        elif run.lastgroup == "stacked":
            found.extend(_CLUSTER.findall(run[0]))
    return found


def prefixes(*words: str) -> list[str]:
    """Return the beginnings of words that are forms of them too, where endings are glued on: of 3, 4, and 6 letters."""
    found: list[str] = []
    for word in words:
        length = len(word)
        if length > 6:
            found += (word[:3], word[:4], word[:6])
        elif length > 4:
            found += (word[:3], word[:4])
        elif length > 3:
            found.append(word[:3])
    return found


def joined(text: str) -> list[str]:
    """Return the words that consist of several, as they are typed in code, addresses, numbers, and names."""
    found: list[str] = []
    for whole in _JOINED.findall(text) if _MAY_JOIN.search(text) else ():
        if len(whole) <= _LONGEST_JOINED:
            folded = whole.lower().replace("\u2212", "-")
            found.append(folded)
            if whole[0] not in ".-" and ("-" in whole or "_" in whole):
                found.append(re.sub(r"[_-]", "", folded))
    for hump in _HUMP.findall(text) if _MAY_HAVE_HUMP.search(text) else ():
        if len(hump) <= _LONGEST_JOINED:
            found.extend(part.lower() for part in _HUMP_PART.findall(hump))
    return found


def _add_pairs(characters: list[str], forms: Forms) -> list[str]:
    pairs = [a + b for a, b in pairwise(characters)] or characters
    forms.main.extend(pairs)
    return pairs


def _add_word(word: str, forms: Forms) -> None:
    decomposed = unicodedata.normalize("NFD", word)
    plain = _POINTS.sub("", _ACCENT.sub("", decomposed))
    plain = unicodedata.normalize("NFC", plain).translate(_SAME_LETTER) or word
    forms.main.append(plain)
    if plain != word:
        forms.exact.append(word)
    forms.loose.extend((prefix, plain) for prefix in prefixes(plain))
    if _ARABIC.match(plain):
        article = _ARTICLE.match(plain)
        _add_rest(plain, article.end() if article and len(plain) > article.end() + 1 else 1, forms)
    elif _HEBREW.match(plain):
        _add_rest(plain, 1, forms)


def _add_rest(word: str, start: int, forms: Forms) -> None:
    """Add the word without the particles that may be glued to its beginning."""
    if len(word) > start + 1:
        rest = word[start:]
        forms.loose.extend((form, word) for form in (rest, *prefixes(rest)))
