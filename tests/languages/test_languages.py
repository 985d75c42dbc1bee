"""Word search in thirty languages, without an embedder: what people write is found by what they ask."""

from __future__ import annotations

from pathlib import Path

import pytest

from openproto import AsyncMemory, MemoryRecord
from openproto.stores.words import query_terms, terms

LEAST_FIRST = 0.95


async def test_nearly_every_query_finds_its_memory_first(tmp_path: Path) -> None:
    found: list[tuple[str, bool]] = []
    async with AsyncMemory("sqlite", path=tmp_path / "memory.db", embedder="none") as memory:
        for part in (Path(__file__).parent / "pairs.txt").read_text(encoding="utf-8").split("# ")[1:]:
            language, *lines = part.splitlines()
            texts = [line.split(" | ") for line in lines]
            assert len(texts) == 10
            stored = await memory.add_many([{"content": content, "user_id": language} for content, _ in texts])
            assert all(isinstance(record, MemoryRecord) for record in stored)
            for content, query in texts:
                best = [*await memory.search(query, language, limit=2), None][:2]
                alone = best[0] and not (best[1] and best[1].score == best[0].score)
                found.append((query, bool(alone and best[0].memory.content == content)))
    assert len(found) == 300
    assert sum(is_first for _, is_first in found) >= LEAST_FIRST * 300, [query for query, first in found if not first]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("दिन", "दान"), ("मेला", "माला"), ("দিন", "দান"), ("কাল", "কুল"), ("மலை", "மாலை"), ("படி", "பாடி"),
        ("కల", "కాల"), ("ਦਿਨ", "ਦਾਨ"), ("ปา", "ปู"), ("ตา", "ตี"), ("ກາ", "ກີ"), ("តា", "តី"), ("မိ", "မု"),
        ("мой", "мои"), ("їх", "іх"), ("猫", "犬"), ("𠮷", "吉"), ("-5", "5°"), ("C++", "C#"), ("🐈", "🐕"),
        ("🇫🇷", "🇫🇮"),
    ],
)  # fmt: skip
def test_words_that_differ_in_meaning_are_not_one(one: str, other: str) -> None:
    wanted, alike = query_terms(one), set(terms(other))
    assert not ({*wanted.terms, *wanted.variants} <= alike)
    assert {*wanted.terms, *wanted.variants} <= set(terms(one))


@pytest.mark.parametrize(
    ("written", "asked"),
    [
        ("كِتَابٌ", "كتاب"), ("كتـــاب", "كتاب"), ("والكتاب", "كتاب"), ("דָּנִי", "דני"), ("בבית", "בית"),
        ("שָׁלוֹם", "שלום"),
        ("café", "cafe"), ("Ångström", "angstrom"), ("ёлка", "елка"), ("Άθήνα", "αθηνα"), ("İstanbul", "istanbul"),
        ("私は猫が好き", "猫"), ("目が痛い", "目"), ("めがいたい", "め"), ("집에서", "집"), ("고양이는", "고양이를"),
        ("กินปู", "ปู"),
        ("talossa", "talo"), ("𠮷野家", "𠮷"), ("C++ and C#", "c++"), (".NET runtime", ".net"), ("at -5 degrees", "-5"),
        ("version 3.2", "3.2"), ("v1.2.3-rc1", "1.2.3"), ("write to ada@example.org", "ada@example.org"),
        ("in notes_2024.txt", "notes_2024.txt"), ("getUserName", "get user name"), ("user_id", "userId"),
        ("e-mail", "email"), ("👩‍💻 at work", "👩"), ("❤️", "❤"), ("ＴＥＡ", "tea"), ("می‌خواهم", "میخواهم"),
        ("𝓗𝓮𝓵𝓵𝓸", "hello"), ("Lego™ bricks", "lego"), ("№5", "no5"),
    ],
)  # fmt: skip
def test_a_word_is_found_however_it_is_written(written: str, asked: str) -> None:
    assert set(query_terms(asked).terms) & set(terms(written))


@pytest.mark.parametrize("part", ["a", "aB", "a.", "a_", "-1", "猫", "é", "ก"])
def test_the_longest_texts_are_split(part: str) -> None:
    assert terms(part * (100_000 // len(part)))
