"""`Backend`: what a backend's author tells the suite about it, with a default for everything but the provider."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import ClassVar

from openproto import Provider


class Backend:
    """The hooks of a suite: `provider` is needed, the others sharpen what can be seen from outside."""

    deviations: ClassVar[Mapping[str, str]] = {}
    """Known failures, `{"case": "why"}` or `{"case[sync]": "why"}`. Strict: one that passes is itself a failure."""

    secrets: ClassVar[Sequence[str]] = ()
    """Passwords and keys among the provider's options: none may show in a message, a log line, or a repr."""

    threads: ClassVar[int] = 40
    """The most threads that one client of this provider may ever have."""

    quick: ClassVar[bool] = False
    """Whether every case runs with less of everything even where pytest was not told so: for slow backends."""

    seed: ClassVar[int] = 0
    """Which histories and random moments are tried; two runs with one seed try the same."""

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
