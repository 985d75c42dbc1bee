"""The whole contract on the simplest vendor: whatever its search can reach, and in whatever order it lists.

Every day on one face, since `Memory` does with it what it does with the stores.
"""

from __future__ import annotations

from functools import cache

import pytest
from dict_vendor import DictVendor, Row
from openproto_conformance import ProviderSuite
from openproto_conformance.cases import AREAS

from openproto import Provider

FORKED = {"a_forked_child_has_a_backend_of_its_own": "a dictionary is copied when its process is"}


@cache
def rows(name: str) -> dict[str, Row]:
    return {}


@pytest.mark.everyday(*(area.name for area in AREAS), faces=("async",))
class TestDictVendor(ProviderSuite):
    quick = True
    deviations = FORKED

    def provider(self) -> Provider:
        return DictVendor(rows("plain"))


@pytest.mark.everyday("context", "filters", "histories", "paging", "search", "time", faces=("async",))
class TestShortSightedVendor(ProviderSuite):
    """Its search never answers more than three hits, and it lists in order."""

    quick = True
    deviations = FORKED

    def provider(self) -> Provider:
        return DictVendor(rows("short-sighted"), most_ranked=3, ordered=True)
