"""`ProviderSuite`: what a backend's author writes, and nothing more than that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, ClassVar

from openproto import Provider

if TYPE_CHECKING:
    from openproto_conformance.execute import SuiteRun
    from openproto_conformance.outcome import Work


class ProviderSuite:
    """The conformance suite for the backend whose provider `provider()` returns.

    Only `provider` is needed. The other hooks sharpen what the suite can see from outside; each has a default that
    works for every backend. The cases themselves cannot be replaced.
    """

    deviations: ClassVar[Mapping[str, str]] = {}
    """Known failures, `{"case": "why"}` or `{"case[sync]": "why"}`. Strict: one that passes is itself a failure."""

    secrets: ClassVar[Sequence[str]] = ()
    """Passwords and keys among the provider's options: none may show in a message, a log line, or a repr."""

    threads: ClassVar[int] = 40
    """The most threads that one client of this provider may ever have."""

    quick: ClassVar[bool] = False
    """Whether every case runs with less of everything even where pytest was not told so: for slow backends."""

    patience: ClassVar[float] = 1.0
    """How many times longer than usual a call and a case may take before it is given up: for backends that are slow.

    What the protocol bounds itself, such as how soon a cancelled call ends, it leaves alone.
    """

    def provider(self) -> Provider:
        """Return a new, unopened provider; all of them work on the same store."""
        raise NotImplementedError(f"{type(self).__name__} must define provider()")

    def pooled(self, size: int) -> Provider:
        """Return a new provider with a pool of `size` connections, where it has such an option."""
        return self.provider()

    def stalled(self) -> AbstractContextManager[object] | None:
        """Return a context manager under which the backend does not finish an `add`; None where that is impossible."""
        return None

    def busy(self, provider: Provider) -> int | None:
        """Return how many connections of an open provider are in use now; None where that cannot be seen."""
        return None

    def unreachable(self) -> Provider | None:
        """Return a provider whose backend cannot be reached, with `secrets` among its options where it takes any."""
        return None

    def test_conforms(self, openproto_run: SuiteRun, openproto_work: Work) -> None:
        """Try one case on one face (pytest gives both)."""
        from openproto_conformance.outcome import tell_pytest

        tell_pytest(openproto_run.execute(self, openproto_work))

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # Imported here: whoever defines a suite pays for the cases, whoever merely has the plugin does not.
        from openproto_conformance.cases import CASES

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
