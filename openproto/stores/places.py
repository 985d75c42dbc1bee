"""Where in a conversation a memory was said, and which places are beside that."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

MOST_TURNS = 1_000_000_000

MOST_BESIDE = 2
"""How far two turns may be from each other to stand side by side: what was said between them may not have been kept."""


class Place(NamedTuple):
    """Where a memory stands in a conversation; facts stand in none."""

    conversation: str
    turn: int

    def beside(self, side: Literal[-1, 1]) -> tuple[Place, Place]:
        """Return the places before (-1) or after (1), the nearer first: one side of the talk may not have been kept."""
        return self._replace(turn=self.turn + side), self._replace(turn=self.turn + MOST_BESIDE * side)


def place_of(extensions: Mapping[str, object]) -> Place | None:
    """Return the place that the extension `x-openproto` gives."""
    told = extensions.get("x-openproto")
    if not isinstance(told, Mapping):
        return None
    conversation, turn = told.get("conversation"), told.get("turn")
    if not isinstance(conversation, str) or type(turn) is not int or not 0 <= turn < MOST_TURNS:
        return None
    return Place(conversation, turn)
