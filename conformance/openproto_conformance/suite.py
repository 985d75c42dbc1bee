"""`ProviderSuite`: what a backend's author writes, and nothing more than that."""

from __future__ import annotations

from typing import Any

from openproto_conformance.backend import Backend
from openproto_conformance.cases import CASES
from openproto_conformance.execute import SuiteRun
from openproto_conformance.outcome import Work, tell_pytest


class ProviderSuite(Backend):
    """The conformance suite for the backend whose provider `provider()` returns.

    Only `provider` is needed. The other hooks (see `Backend`) sharpen what the suite can see from outside; each has a
    default that works for every backend. The cases themselves cannot be replaced.
    """

    def test_conforms(self, openproto_run: SuiteRun, openproto_work: Work) -> None:
        """Try one case on one face (pytest gives both)."""
        tell_pytest(openproto_run.execute(self, openproto_work))

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        names = {case.name for case in CASES}
        replaced = sorted(name for name in names | {f"test_{name}" for name in names} if hasattr(cls, name))
        if cls.test_conforms is not ProviderSuite.test_conforms:
            replaced.append("test_conforms")
        if replaced:
            raise TypeError(
                f"{cls.__name__} replaces {replaced[0]!r}: cases cannot be replaced; "
                "a known failure belongs in deviations, with its reason"
            )
        known = names | {f"{case.name}[{face}]" for case in CASES for face in case.faces}
        for name, reason in cls.deviations.items():
            if name not in known:
                raise TypeError(f"{cls.__name__}.deviations names {name!r}, which is no case of this suite")
            if not reason.strip():
                raise TypeError(f"{cls.__name__}.deviations[{name!r}] needs a reason")
