"""What came of a case on a face."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeAlias

from openproto_conformance.case import Case
from openproto_conformance.checks import Violation
from openproto_conformance.faces import Face

Outcome: TypeAlias = Literal["passed", "refused", "unseen", "nonstrict", "deviated", "failed", "missing"]
"""Kept; not declared and properly refused; kept as far as can be seen without a hook that the suite lacks; a SHOULD
that is not kept; a declared failure; broken; never tried."""

NOT_TRIED = "was not run"


class Work(NamedTuple):
    """One case on one face."""

    case: Case
    face: Face

    def __str__(self) -> str:
        return f"{self.case.area}/{self.case.name}[{self.face}]"


@dataclass(slots=True)
class Result:
    """The outcome of a piece of work; until it has been tried, that is `missing`."""

    work: Work
    outcome: Outcome = "missing"
    detail: str = NOT_TRIED
    seconds: float = 0.0
    measures: dict[str, float] = field(default_factory=dict)
    hung: bool = False
    """It did not end in time."""
    exited: bool = False
    """The provider ended the loop of every `Memory`."""
    error: BaseException | None = None


def tell_pytest(result: Result) -> None:
    """Let the running pytest test end as `result` did."""
    __tracebackhide__ = True
    if result.error is not None and result.outcome == "failed":
        raise result.error
    if result.outcome in ("failed", "missing"):
        raise Violation(result.detail)
    if result.outcome in ("deviated", "nonstrict"):
        # Imported here: only a failure under pytest needs it, and `run` works without it.
        import pytest

        pytest.xfail(result.detail)
