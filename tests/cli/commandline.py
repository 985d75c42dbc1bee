"""How the tests start the command line, and what they keep of its end."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

PROGRAM = [sys.executable, "-W", "error", "-m", "openproto.cli"]


@dataclass(frozen=True)
class Ended:
    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def error(self) -> dict[str, str]:
        return json.loads(self.err)["error"]


Run: TypeAlias = Callable[..., Ended]
