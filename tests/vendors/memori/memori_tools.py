"""The types of this folder's fixtures."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from typing import Any, TypeAlias

RunPython: TypeAlias = Callable[..., "subprocess.CompletedProcess[str]"]
Sql: TypeAlias = Callable[..., list[tuple[Any, ...]]]
WriteFact: TypeAlias = Callable[..., str]
"""`memoris_own(user_id, content, embedding)`"""
