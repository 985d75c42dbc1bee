"""Files of SQLite's that are looked for next to open connections of the same process."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from openproto_adapters.sqlite import Sqlite
from openproto_conformance import outside

from openproto.blocking.sqlite import make_private_file

WRITES = "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=0).execute('BEGIN IMMEDIATE')"


def look_for_a_database(path: Path) -> None:
    stalled = outside.stalled(Sqlite(path))
    assert stalled is not None


@pytest.mark.parametrize("look", [make_private_file, look_for_a_database])
def test_to_look_for_a_file_leaves_the_locks_on_it_alone(
    look: Callable[[Path], None], tmp_path: Path, run_python: Any
) -> None:
    path = tmp_path / "new" / "memory.db"
    make_private_file(path)
    assert path.stat().st_mode & 0o777 == 0o600
    with closing(sqlite3.connect(path, isolation_level=None)) as holder:
        holder.execute("CREATE TABLE memories (id)")
        holder.execute("BEGIN IMMEDIATE")
        look(path)
        assert "database is locked" in run_python(WRITES, path).stderr
