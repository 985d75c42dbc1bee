"""A file whose words were made by other rules is noticed, and renewed by `reindex`."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from openproto import AsyncMemory, ProviderError


async def test_words_of_other_rules_are_noticed_and_made_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "memory.db"
    async with AsyncMemory("sqlite", path=path, embedder="none") as memory:
        for n in range(300):
            await memory.add(f"पिछले दिन {n}", user_id="ada")
    with sqlite3.connect(path) as file:
        assert file.execute("SELECT rules FROM store").fetchone() == (2,)
        file.execute("UPDATE store SET rules = 1")
        file.execute("UPDATE words SET terms = 'older'")
    async with AsyncMemory("sqlite", path=path, embedder="none") as memory:
        assert await memory.search("day", "ada") == []
        with pytest.raises(ProviderError, match="run `openproto reindex`"):
            await memory.search("दिन", "ada")
    assert "run `openproto reindex`" in caplog.text
    renewing = AsyncMemory("sqlite", path=path, embedder="none")
    await renewing._session.provider.reindex(lambda progress: None)
    await renewing.aclose()
    async with AsyncMemory("sqlite", path=path, embedder="none") as memory:
        assert len(await memory.search("दिन", "ada", limit=100)) == 100
        assert await memory.search("दान", "ada") == []
