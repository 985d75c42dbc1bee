"""All of ACME's tests: the conformance suite, every case of it, on both faces."""

from acme_memory import Acme
from openproto_conformance import ProviderSuite


class TestAcme(ProviderSuite):
    def provider(self) -> Acme:
        return Acme(store="tests")
