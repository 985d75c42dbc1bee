"""Cutting a blocking call short: the socket that its thread waits on is shut down from outside.

What is given up is the *call*, never its thread: the flag is made for one call and forgotten with it, so whatever the
same thread runs next is untouched.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator


class CallAborted(BaseException):
    """Raised by the network calls of an aborted call; like CancelledError, no `except Exception` stops it."""


class Abort:
    """Whether one call was given up, and the socket that its thread waits on now."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_set = False
        self._socket: socket.socket | None = None

    def set(self) -> None:
        """Give the call up: its thread wakes if it waits on a socket, and its next network call raises. Never waits."""
        with self._lock:
            self._is_set = True
            if self._socket is not None:
                shut_down(self._socket)

    def check(self) -> None:
        """Raise CallAborted if the call was given up."""
        if self._is_set:
            raise CallAborted

    @contextlib.contextmanager
    def waiting_on(self, sock: socket.socket) -> Iterator[None]:
        """Let `set()` shut `sock` down for as long as this lasts, and raise CallAborted if it did."""
        with self._lock:
            self.check()
            self._socket = sock
        try:
            yield
        finally:
            with self._lock:
                self._socket = None
            # Whatever the shutdown looked like from inside (an end of data, a broken pipe), this is what it was.
            self.check()


def shut_down(sock: socket.socket) -> None:
    """End both directions of `sock` at once, which, unlike closing it, wakes a thread that waits on it."""
    with contextlib.suppress(OSError):  # not connected any more, or not yet
        # Not the method of SSLSocket, which also takes the TLS state away from the thread that is using it.
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


class _Here(threading.local):
    abort: Abort | None = None


_here = _Here()


@contextlib.contextmanager
def abortable_by(abort: Abort) -> Iterator[None]:
    """Make `abort` the one that this thread's network calls obey."""
    _here.abort = abort
    try:
        yield
    finally:
        _here.abort = None


def current_abort() -> Abort:
    """Return what the call that this thread runs obeys; outside of such a call, one that nobody sets."""
    return _here.abort or Abort()
