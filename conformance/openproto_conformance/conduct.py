"""What a provider may not do to the process that it runs in, and where a call stands that does not end."""

from __future__ import annotations

import asyncio
import io
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable
from types import CoroutineType, TracebackType
from typing import Any, Self

from openproto.client.session import Session

_MOST = 80
_GRACE = 1.0


class Printed:
    """Notes what is printed to stdout inside a `with`, in place of printing it: the output is the caller's."""

    def __enter__(self) -> Self:
        self._own = sys.stdout
        self._heard = _Heard()
        sys.stdout = self._heard
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if sys.stdout is self._heard:
            sys.stdout = self._own

    @property
    def complaint(self) -> list[str]:
        """What to say of it: a list of one, or of nothing."""
        text = self._heard.getvalue()
        return [f"text on stdout, {len(text)} characters that begin with {text[:_MOST]!r}"] if text else []


class _Heard(io.StringIO):
    """A stdout that keeps what is written, whoever still holds it later."""

    def fileno(self) -> int:
        raise io.UnsupportedOperation("fileno")


def lasting_threads(before: Iterable[threading.Thread]) -> list[str]:
    """Name the threads that are new, will keep the interpreter from ending, and do not end by themselves."""
    known = set(before)
    deadline = time.monotonic() + _GRACE
    while True:
        new = [t for t in threading.enumerate() if t not in known and not t.daemon and t.is_alive()]
        if not new or time.monotonic() > deadline:
            return sorted(f"the thread {t.name!r}, which is no daemon and keeps the process from ending" for t in new)
        time.sleep(0.02)


def under_way(*loops: asyncio.AbstractEventLoop) -> str:
    """Name the verbs whose calls have not ended on these loops, each with how many there are."""
    verbs = Counter(verb for loop in loops for task in _tasks(loop) if (verb := _verb_of(task)) is not None)
    return ", ".join(f"{number} x {verb}" for verb, number in sorted(verbs.items()))


def _tasks(loop: asyncio.AbstractEventLoop) -> set[asyncio.Task[Any]]:
    try:
        return asyncio.all_tasks(loop)
    except RuntimeError:  # tasks came and went while they were listed
        return set()


def _verb_of(task: asyncio.Task[Any]) -> str | None:
    step: Any = task.get_coro()
    while isinstance(step, CoroutineType):
        if step.cr_code is Session.call.__code__ and step.cr_frame is not None:
            return str(step.cr_frame.f_locals["verb"])
        step = step.cr_await
    return None
