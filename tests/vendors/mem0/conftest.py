"""A folder for the library's local store, and the platform on loopback."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from openproto_conformance.emulators.mem0 import Mem0Platform

IN_MEMORY = Path("/dev/shm")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder, in memory where there is such a place: the store waits for the disk with every write."""
    with tempfile.TemporaryDirectory(dir=IN_MEMORY if IN_MEMORY.is_dir() else None) as made:
        yield Path(made)


@pytest.fixture
def platform() -> Iterator[Mem0Platform]:
    """The platform, checked against mem0's own document in all it answered."""
    with Mem0Platform() as running:
        yield running
        assert running.violations == []
