"""The conformance suite, every case of it on both faces."""

import tempfile

from openproto_conformance import ProviderSuite
from openproto_lancedb import LanceDB

PATH = tempfile.mkdtemp(prefix="lancedb-")


class TestLanceDB(ProviderSuite):
    def provider(self) -> LanceDB:
        return LanceDB(PATH)
