"""The suite on the two stores."""

from __future__ import annotations

import pytest
from store_suites import PostgresSuite, SqliteSuite


@pytest.mark.promise(77)
@pytest.mark.promise(85)
class TestSqlite(SqliteSuite):
    pass


@pytest.mark.promise(77)
@pytest.mark.promise(85)
class TestPostgres(PostgresSuite):
    pass
