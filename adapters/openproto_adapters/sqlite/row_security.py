"""What a statement meets of the tables that hold rows of users: those of the user it acts for.

SQLite has no policies. But temporary views hide the tables of their names, and temporary triggers stand before a
change; both belong to one connection and change nothing in the file. So a statement that has lost its condition on the
user still reads that user's rows alone, and changes no others. What writes names the table itself: `main.memories`.
"""

from __future__ import annotations

import sqlite3

TABLES = ("memories", "keys", "audit")

# The function is called once for a statement and not for each row, because nothing of a row is passed to it.
_STATEMENTS = [
    "PRAGMA temp_store = memory",
    *(
        f"CREATE TEMPORARY VIEW IF NOT EXISTS {table} AS SELECT * FROM main.{table} "
        "WHERE user_id = acting_user() OR acting_user() IS NULL"
        for table in TABLES
    ),
    *(
        f"CREATE TEMPORARY TRIGGER IF NOT EXISTS acting_{change} BEFORE {change} ON main.memories "
        "WHEN old.user_id <> acting_user() BEGIN SELECT raise(IGNORE); END"
        for change in ("UPDATE", "DELETE")
    ),
]


def secure_rows(connection: sqlite3.Connection) -> None:
    """Put the views and triggers of `acting_user()` before the tables."""
    for statement in _STATEMENTS:
        connection.execute(statement)
