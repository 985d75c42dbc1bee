"""The suite that a memory backend passes to be trusted.

Under pytest, a backend's whole test file is a class with one method::

    class TestAcme(ProviderSuite):
        def provider(self) -> Provider:
            return Acme(url="http://localhost:8000")

Without pytest, `run(lambda: Acme(...))` returns the same `Report`.
"""

from openproto_conformance.report import Report
from openproto_conformance.run import run
from openproto_conformance.suite import ProviderSuite

__all__ = ["ProviderSuite", "Report", "run"]
