"""`ProviderSuite`: what a backend's author writes, and nothing more than that."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
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
        if complaint := complaint_about(cls.deviations):
            raise TypeError(f"{cls.__name__}.deviations: {complaint}")


def complaint_about(deviations: Mapping[str, str]) -> str:
    """Say what is wrong with known failures, or nothing: each names a case, or a case on a face, and has a reason."""
    names = [case.name for case in CASES]
    known = {*names, *(f"{case.name}[{face}]" for case in CASES for face in case.faces)}
    for name, reason in deviations.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else "."
            return (
                f"a deviation names a case, and {name!r} is none of this suite{hint} The cases, of which each can be "
                f"named with [async] or [sync] behind it: {', '.join(names)}"
            )
        if not reason.strip():
            return f"the deviation {name!r} needs a reason: what is known about the failure"
    return ""
