"""Keys, versions, handovers, restoring, and the second line of defence between users, on a real PostgreSQL."""

from __future__ import annotations

import contextlib
import re

import pytest
from openproto_adapters.postgres import changes, queries, restoring
from store_contract import CASES, Case, probe_isolation

from openproto import AsyncMemory, ProviderError


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
async def test_the_contract(memory: AsyncMemory, case: Case) -> None:
    await case(memory)


OTHERS = r"(?:changed|target|handed|item|successor)\.user_id"
USER = re.compile(rf"(?:m\.)?user_id = (?:coalesce\((\$\d), m\.user_id\)|(\$\d)|{{}}|{OTHERS})")
CONDITIONS = [
    (module, name, number)
    for module in (changes, queries, restoring)
    for name, text in sorted(vars(module).items())
    if name.isupper() and isinstance(text, str)
    for number in range(len(USER.findall(text)))
]


def test_every_statement_has_its_condition() -> None:
    assert len(CONDITIONS) >= 20


@pytest.mark.parametrize(("module", "name", "number"), CONDITIONS, ids=lambda value: getattr(value, "__name__", value))
async def test_without_one_condition_no_foreign_row_comes_out_or_changes(
    memory: AsyncMemory, monkeypatch: pytest.MonkeyPatch, module: object, name: str, number: int
) -> None:
    count = iter(range(100))

    def without(match: re.Match[str]) -> str:
        if next(count) != number:
            return match[0]
        parameter = match[1] or match[2] or ("{}" if "{}" in match[0] else "'x'")
        return f"coalesce({parameter}::text, '') IS NOT NULL"  # a parameter that is not used has no type

    monkeypatch.setattr(module, name, USER.sub(without, getattr(module, name)))
    with contextlib.suppress(ProviderError):  # even the look at what there is may be withheld
        await probe_isolation(memory)


async def test_with_every_condition_nothing_is_withheld(memory: AsyncMemory) -> None:
    assert await probe_isolation(memory) == 0
