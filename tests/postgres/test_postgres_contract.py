"""Keys, versions, handovers, restoring, and the second line of defence between users, on a real PostgreSQL."""

from __future__ import annotations

import contextlib
import re
from datetime import UTC, datetime

import pytest
from openproto_adapters.postgres import changes, queries, restoring
from openproto_adapters.postgres import schema as tables
from postgres_tools import MakeClient, execute
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


OLD = """
INSERT INTO {schema}.memories (id, user_id, content, created_at, words, tags, supersedes, superseded_by, superseded_at)
SELECT id::uuid, 'ada', content, at::timestamptz, '{{}}/1000'::sparsevec, '{{}}', old::uuid[], by::uuid,
    since::timestamptz
FROM (VALUES
    ('00000000-0000-8000-8000-000000000001', 'note one', '2026-01-01Z', '{{}}',
        '00000000-0000-8000-8000-000000000002', '2026-01-02Z'),
    ('00000000-0000-8000-8000-000000000002', 'note two', '2026-01-02Z', '{{00000000-0000-8000-8000-000000000001}}',
        NULL, NULL),
    ('00000000-0000-8000-8000-000000000003', 'note three', '2026-01-01Z', '{{}}',
        '00000000-0000-8000-8000-000000000009', '2026-01-03Z')
) AS old (id, content, at, old, by, since)
"""


async def test_tables_of_the_first_version_are_upgraded_and_keep_what_they_held(
    dsn: str, schema: str, make: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = tables.migrations()[:1]
    with monkeypatch.context() as patched:
        patched.setattr(tables, "migrations", lambda: first)
        await execute(dsn, tables.schema_script(schema), OLD.format(schema=schema))
    async with make() as memory:
        one, two, three = [
            await memory.get(f"00000000-0000-8000-8000-00000000000{number}", user_id="ada") for number in (1, 2, 3)
        ]
        assert (two.valid_from, one.superseded_by, len({one.version, two.version, three.version})) == (None, two.id, 3)

        async def current(day: int) -> set[str]:
            return {r.content async for r in memory.iter("ada", as_of=datetime(2026, 1, day, tzinfo=UTC))}

        assert await current(1) == {"note one", "note three"}
        assert await current(2) == {"note two", "note three"}
        assert await current(3) == {"note two"}
        await memory.update(two.id, supersedes=None)
        assert await current(1) == {"note one", "note two", "note three"}
