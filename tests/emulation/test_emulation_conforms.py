"""The whole contract on the simplest vendor: whatever its search can reach, and in whatever order it lists."""

from __future__ import annotations

from functools import cache

from dict_vendor import DictVendor, Row
from openproto_conformance import ProviderSuite

from openproto import Provider

FORKED = {"a_forked_child_has_a_backend_of_its_own": "a dictionary is copied when its process is"}


@cache
def rows(name: str) -> dict[str, Row]:
    """Return a store that lasts as long as the test run."""
    return {}


class TestDictVendor(ProviderSuite):
    quick = True
    deviations = FORKED

    def provider(self) -> Provider:
        return DictVendor(rows("plain"))


class TestShortSightedVendor(ProviderSuite):
    """Its search never answers more than three hits, and it lists in order."""

    quick = True
    deviations = FORKED

    def provider(self) -> Provider:
        return DictVendor(rows("short-sighted"), most_ranked=3, ordered=True)
