"""Row-level security: the database shows a statement the rows of the users that it acts for, and no other rows.

A statement names those users in one parameter more, of the domain `acting_for`. The check of that domain puts them into
a setting that lasts as long as the transaction. The server reads the parameters before it plans or runs anything, so
the policies see the setting whatever the plan, in the same round trip, and no pooler carries it to another client. A
statement that has lost its condition on the user still reads and writes that user's rows alone, and one that names no
user at all is refused by the first row that it meets.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import NamedTuple, NewType

Acting = NewType("Acting", str)
"""The users of a statement as the setting holds them: an array of PostgreSQL, or `EVERYBODY`."""

EVERYBODY = Acting("*")
"""What the operator's statements act for, and those that look for a record by its id alone."""

_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)

TABLES = ("memories", "keys", "audit", "large_users", "postings")
"""The tables that hold rows of users."""


def acting_for(*users: str) -> Acting:
    """Return how a statement names the users whose rows it may meet."""
    return Acting(array_of(users))


def array_of(texts: Collection[str]) -> str:
    """Return texts as PostgreSQL writes an array of them."""
    quoted = [text.replace("\\", r"\\").replace('"', r"\"") for text in texts]
    return '{"' + '","'.join(quoted) + '"}' if texts else "{}"


def users_of(acting: Acting) -> Sequence[str]:
    """Return the users that `acting_for` was given, and none of `EVERYBODY`."""
    return [re.sub(r"\\(.)", r"\1", user, flags=re.DOTALL) for user in _QUOTED.findall(acting)]


def acting_for_owner(user_id: str | None) -> Acting:
    """Return whose rows a statement about one id may meet: anybody's, where the caller names no user."""
    return EVERYBODY if user_id is None else acting_for(user_id)


def name_users(statement: str, number: int) -> str:
    """Return the statement with the parameter of that number as the users that it acts for.

    Nothing refers to the expression that takes it, so it costs the plan nothing.
    """
    acting = f"acting AS (SELECT ${number}::{{schema}}.acting_for)"
    statement = statement.lstrip()
    for start in ("WITH RECURSIVE ", "WITH "):
        if statement.startswith(start):
            return f"{start}{acting}, {statement.removeprefix(start)}"
    return f"WITH {acting} {statement}"


def turn_on(schema: str) -> str:
    """Return the SQL by which the owner of the tables turns it on, for the owner's own statements too."""
    return "\n".join(
        f"ALTER TABLE {schema}.{table} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;" for table in TABLES
    )


STATE = f"""
SELECT bool_and(relrowsecurity AND relforcerowsecurity) AS is_on, bool_and(pg_has_role(relowner, 'USAGE')) AS may_alter,
    (SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user) AS is_exempt
FROM pg_class WHERE relnamespace = '{{schema}}'::regnamespace AND relname IN ({", ".join(map(repr, TABLES))})
"""


class RowSecurity(NamedTuple):
    """What `STATE` finds."""

    is_on: bool
    may_alter: bool
    is_exempt: bool

    def __str__(self) -> str:
        if not self.is_on:
            remedy = (
                "open a client without row_security=False"
                if self.may_alter
                else "the tables belong to another role: let that one run what `openproto schema` prints"
            )
            return f"off: the conditions of the statements alone keep users apart. To turn it on, {remedy}"
        if self.is_exempt:
            return (
                "on, but not for this role: PostgreSQL lets superusers and roles with BYPASSRLS past every policy. "
                "Connect as an ordinary role"
            )
        return "holds: this role meets only the rows of the user that a statement acts for"
