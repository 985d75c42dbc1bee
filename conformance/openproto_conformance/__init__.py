"""The suite that a memory backend passes to be trusted.

Under pytest, a backend's whole test file is a class with one method::

    class TestAcme(ProviderSuite):
        def provider(self) -> Provider:
            return Acme(url="http://localhost:8000")

Without pytest, `run(lambda: Acme(...))` returns the same `Report`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from openproto_conformance.report import Report
    from openproto_conformance.runner import run
    from openproto_conformance.suite import ProviderSuite

__all__ = ["ProviderSuite", "Report", "run"]

_HOMES = {"ProviderSuite": "suite", "Report": "report", "run": "runner"}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for: pytest loads this package's plugin into every run."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
