"""The suite on the two stores."""

from __future__ import annotations

import pytest
from store_suites import PostgresSuite, SqliteSuite


@pytest.mark.promise(21, 24, 27, 77, 82, 85, 89, 98, 107, 111, 119)
class TestSqlite(SqliteSuite):
    pass


@pytest.mark.promise(77, 85)
class TestPostgres(PostgresSuite):
    pass
