"""Word search in thirty languages, without an embedder: what people write is found by what they ask."""

from __future__ import annotations

from pathlib import Path

import pytest

from openproto import AsyncMemory, MemoryRecord
from openproto.stores.words import query_terms, terms

LEAST_FIRST = 0.95


def pairs() -> dict[str, list[tuple[str, str]]]:
    """Return the memories and queries of `pairs.txt`, by language."""
    found: dict[str, list[tuple[str, str]]] = {}
    language = ""
    for line in (Path(__file__).parent / "pairs.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("# "):
            language = line[2:]
            found[language] = []
        else:
            memory, _, query = line.partition(" | ")
            found[language].append((memory, query))
    return found


async def test_nearly_every_query_finds_its_memory_first(tmp_path: Path) -> None:
    languages = pairs()
    assert len(languages) == 30
    first: list[str] = []
    async with AsyncMemory("sqlite", path=tmp_path / "memory.db", embedder="none") as memory:
        for language, texts in languages.items():
            assert len(texts) == 10
            stored = await memory.add_many([{"content": content, "user_id": language} for content, _ in texts])
            assert all(isinstance(record, MemoryRecord) for record in stored)
        for language, texts in languages.items():
            for content, query in texts:
                found = await memory.search(query, language, limit=2)
                if (
                    found
                    and found[0].memory.content == content
                    and found[0].score > found[-1].score - (len(found) == 1)
                ):
                    first.append(query)
    assert len(first) >= LEAST_FIRST * 300, [q for texts in languages.values() for _, q in texts if q not in first]


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
    ],
)  # fmt: skip
def test_a_word_is_found_however_it_is_written(written: str, asked: str) -> None:
    assert set(query_terms(asked).terms) & set(terms(written))


@pytest.mark.parametrize(
    "text",
    [
        "a" * 100_000,
        "aB" * 50_000,
        "a." * 50_000,
        "a_" * 50_000,
        "-1" * 50_000,
        "猫" * 100_000,
        "é" * 100_000,
        "ก" * 100_000,
    ],
)
def test_the_longest_texts_are_split(text: str) -> None:
    assert terms(text)


@pytest.mark.parametrize("query", ["?!…", "🐈", "word " * 1_600, "אבג abc ابج", "\u202eabc\u202c"])
async def test_any_query_gets_an_answer(tmp_path: Path, query: str) -> None:
    async with AsyncMemory("sqlite", path=tmp_path / "memory.db", embedder="none") as memory:
        await memory.add("word abc 🐈 אבג", user_id="ada")
        assert len(await memory.search(query, "ada")) == (query != "?!…")
