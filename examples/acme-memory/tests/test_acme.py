"""All of ACME's tests: the conformance suite, every case of it on both faces."""

import tempfile
from pathlib import Path

from acme_memory import Acme
from openproto_conformance import ProviderSuite

PATH = Path(tempfile.mkdtemp(prefix="acme-")) / "acme.jsonl"


class TestAcme(ProviderSuite):
    def provider(self) -> Acme:
        return Acme(str(PATH))
