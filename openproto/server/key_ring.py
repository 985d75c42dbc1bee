"""The keys that a running server knows: those of the settings, or those of a file, whose changes it follows."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from openproto import UnauthorizedError
from openproto.server.keys import ApiKey, find_key, read_keys
from openproto.server.keys_file import add_usage
from openproto.server.settings import ServerSettings

_log = logging.getLogger(__name__)

_POLL_SECONDS = 0.3
_USAGE_SECONDS = 30.0
_NONE_KNOWN = "every key is refused until it can be read"


class KeyRing:
    """Keys and how often they were used.

    A file that cannot be read any more changes nothing: the keys that were read last stay, and `problem` says why. A
    worker that starts meanwhile knows none: those that the server started with may have been revoked since.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self.required = bool(settings.keys)
        """Whether a request needs a key; a file that becomes empty does not open the server."""
        self.problem: str | None = None
        self._path: Path | None = settings.keys_file
        self._keys: list[ApiKey] = settings.keys if self._path is None else []
        self._told = settings.keys  # of which the log has spoken
        self._seen: tuple[int, ...] | None = None
        self._used: dict[str, tuple[int, datetime]] = {}

    def authenticate(self, presented: str) -> ApiKey:
        """Return the entry of a key and count its use; UnauthorizedError where it is unknown or has expired."""
        key = find_key(self._keys, presented.encode())
        if key is None:
            raise UnauthorizedError("this API key is not known here; ask whoever runs the server for another")
        if key.has_expired:
            raise UnauthorizedError("this API key has expired; ask whoever runs the server for another")
        if self._path is not None:
            count, _ = self._used.get(key.sha256, (0, None))
            self._used[key.sha256] = count + 1, datetime.now(UTC)
        return key

    @asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        """Follow the file while the block runs: within a second of a change, and at once on SIGHUP."""
        if self._path is None:
            yield
            return
        await asyncio.to_thread(self._refresh, self._path)
        hangup = asyncio.Event()
        loop = asyncio.get_running_loop()
        with suppress(ValueError, RuntimeError):  # not in the main thread, where signals arrive
            loop.add_signal_handler(signal.SIGHUP, hangup.set)
        task = asyncio.create_task(self._follow(self._path, hangup))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await self._write_usage(self._path)

    async def _follow(self, path: Path, hangup: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        written = loop.time()
        while True:
            await asyncio.to_thread(self._refresh, path, force=hangup.is_set())
            hangup.clear()
            if loop.time() - written > _USAGE_SECONDS:
                written = loop.time()
                await self._write_usage(path)
            with suppress(TimeoutError):
                async with asyncio.timeout(_POLL_SECONDS):
                    await hangup.wait()

    def _refresh(self, path: Path, *, force: bool = False) -> None:
        try:
            found = os.stat(path)
            seen = (found.st_ino, found.st_size, found.st_mtime_ns)
            if seen == self._seen and not force:
                return
            keys = read_keys(path)
        except (OSError, ValueError) as error:
            problem = f"{path}: {error.strerror}" if isinstance(error, OSError) else str(error)
            if problem != self.problem:
                known = "the keys that were read before stay in use" if self._keys else _NONE_KNOWN
                _log.warning("%s; %s", problem, known)
            self.problem, self._seen = problem, None
            return
        if self.problem is not None or keys != self._told:
            _log.info("%d API keys of %s are in use", len(keys), path)
        self._keys = self._told = keys
        self.problem, self._seen = None, seen

    async def _write_usage(self, path: Path) -> None:
        used, self._used = self._used, {}
        if used:
            try:
                await asyncio.to_thread(add_usage, path, used)
            except (OSError, ValueError) as error:
                _log.warning("the use of API keys cannot be counted next to %s (%s)", path, type(error).__name__)
