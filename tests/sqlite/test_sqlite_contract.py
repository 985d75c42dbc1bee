"""Keys, versions, handovers, restoring, and the second line of defence between users, on a real file."""

from __future__ import annotations

import asyncio
import contextlib
import re
from pathlib import Path

import pytest
from openproto_adapters.sqlite import restoring, searching, selection, statements, supersession
from sqlite_tools import check_consistent, memory
from store_contract import CASES, Case, probe_isolation

from openproto import ProviderError


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
async def test_the_contract(tmp_path: Path, case: Case) -> None:
    async with memory(tmp_path / "memory.db") as client:
        await case(client)
    check_consistent(tmp_path / "memory.db")


USER = re.compile(r"(?:\w+\.)?user_id = :user_id")
CONDITIONS = [
    (module, name, number)
    for module in (restoring, searching, selection, statements, supersession)
    for name, text in sorted(vars(module).items())
    if name.isupper() and isinstance(text, str)
    for number in range(len(USER.findall(text)))
]


def test_every_statement_has_its_condition() -> None:
    assert len(CONDITIONS) >= 12


@pytest.mark.parametrize(("module", "name", "number"), CONDITIONS, ids=lambda value: getattr(value, "__name__", value))
async def test_without_one_condition_no_foreign_row_comes_out_or_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: object, name: str, number: int
) -> None:
    count = iter(range(100))
    text = USER.sub(lambda match: "1" if next(count) == number else match[0], getattr(module, name))
    monkeypatch.setattr(module, name, text)
    async with memory(tmp_path / "memory.db") as client:
        with contextlib.suppress(ProviderError):  # even the look at what there is may be withheld
            await probe_isolation(client)


async def test_with_every_condition_nothing_is_withheld(tmp_path: Path) -> None:
    async with memory(tmp_path / "memory.db") as client:
        assert await probe_isolation(client) == 0


WRITER = """
import random, sys
import openproto
path, seed = sys.argv[1], int(sys.argv[2])
random.seed(seed)
done = 0
options = {"embedder": "none", "synchronous": "normal", "lock_timeout": 60}
with openproto.Memory("sqlite", path=path, timeout=120, **options) as memory:
    while done < 60:
        try:
            record = memory.get(key="counter", user_id="ada")
            memory.put(str(int(record.content) + 1), user_id="ada", key="counter", if_version=record.version)
        except openproto.NotFoundError:
            try:
                memory.put("1", user_id="ada", key="counter", if_version="absent")
            except openproto.ConflictError:
                continue
        except openproto.ConflictError:
            continue
        done += 1
        memory.put(f"{seed}", user_id="ada", key=f"other {random.randrange(5)}")
"""


def test_processes_that_compare_versions_lose_no_update(tmp_path: Path, start_python: object) -> None:
    writers = [start_python(WRITER, tmp_path / "memory.db", seed) for seed in range(3)]  # type: ignore[operator]
    for writer in writers:
        assert writer.wait(120) == 0

    async def counted() -> list[str]:
        async with memory(tmp_path / "memory.db") as client:
            assert len([r async for r in client.iter("ada")]) <= 6
            return [(await client.get(key="counter", user_id="ada")).content]

    assert asyncio.run(counted()) == ["180"]
    check_consistent(tmp_path / "memory.db")
