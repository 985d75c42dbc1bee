"""The suite on the two stores."""

from __future__ import annotations

import pytest
from openproto_conformance.cases import AREAS
from store_suites import PostgresSuite, SqliteSuite


class TestSqlite(SqliteSuite):
    pass


# What the sync face adds to a provider is another loop; the areas are tried on it in which that could matter.
@pytest.mark.everyday(*(area.name for area in AREAS), faces=("async",), sync=("basics", "concurrency", "lifecycle"))
class TestPostgres(PostgresSuite):
    pass
