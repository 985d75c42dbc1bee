"""The place of Memori's service: none. Its library runs in the client's process, and what it would download is here.

There is no wire and nothing to check: an "emulator" only for having the same handle as the hosted vendors.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, Self

from openproto_conformance.emulators.emulator import Emulator
from openproto_conformance.emulators.memori.model import build_model

_IN_MEMORY = Path("/dev/shm")  # noqa: S108 - the folder in it has a name of its own


class Memori(Emulator):
    """A folder with a stand-in for Memori's embedding model and an empty SQLite file, from `start` to `stop`."""

    name: ClassVar[str] = "memori"

    def __init__(self, *, lag: float = 0.0, document: Path | None = None) -> None:
        super().__init__(lag=lag, document=document)
        self._folder: TemporaryDirectory[str] | None = None

    @property
    def models(self) -> Path:
        """The folder of the model."""
        return self._here / "models"

    @property
    def database(self) -> Path:
        """The SQLite file."""
        return self._here / "memori.db"

    @property
    def url(self) -> str:
        """Where the memories are."""
        return f"sqlite:///{self.database}"

    @property
    def checked_against(self) -> str:
        """Why nothing is checked."""
        return "Memori's own engine in the client's process, with a stand-in for its embedding model"

    def provider_options(self) -> dict[str, Any]:
        """Return the options that lead to the file and the model."""
        return {"url": self.url, "models": str(self.models)}

    @contextlib.contextmanager
    def stalled(self) -> Iterator[None]:
        """Hold the write lock on the file."""
        with contextlib.closing(sqlite3.connect(self.database, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            yield
            other.execute("ROLLBACK")

    def start(self, port: int = 0) -> Self:
        """Make the folder; there is nothing that listens on a port."""
        # In memory where there is such a place: SQLite waits for the disk with every write.
        place = _IN_MEMORY if _IN_MEMORY.is_dir() else None
        self._folder = TemporaryDirectory(prefix="openproto-memori-", dir=place, ignore_cleanup_errors=True)
        build_model(self.models)
        return self

    def stop(self) -> None:
        """Remove the folder; may be called twice."""
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    @property
    def _here(self) -> Path:
        if self._folder is None:
            raise RuntimeError("the memori emulator is not running")
        return Path(self._folder.name)
