"""A case: one sentence of the protocol, as a coroutine function over a `Bench`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from openproto.models import Verb
from openproto_conformance.bench import Bench
from openproto_conformance.faces import FACES, Face

Level: TypeAlias = Literal["must", "should"]
Feature: TypeAlias = Literal[
    "async_ingestion", "keyword_search", "scopes", "supports_supersession", "temporal", "vector_search"
]
Body: TypeAlias = Callable[[Bench], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Case:
    """What is tried, what it needs, and what to look at when it fails."""

    name: str
    area: str
    sentence: str
    body: Body
    verbs: tuple[Verb, ...]
    features: tuple[Feature, ...]
    level: Level
    faces: tuple[Face, ...]
    hint: str
    seconds: float


class Area:
    """A group of cases about one part of the contract; its `case` decorator collects them in order."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.cases: list[Case] = []

    def case(
        self,
        *verbs: Verb,
        hint: str,
        features: tuple[Feature, ...] = (),
        level: Level = "must",
        faces: tuple[Face, ...] = FACES,
        seconds: float = 30.0,
    ) -> Callable[[Body], Case]:
        """Make the decorated coroutine function a case that needs `verbs` and `features`.

        A provider that does not declare one of them must refuse it instead. `hint` says where to look after a failure;
        `seconds` is when the case is given up.
        """

        def add(body: Body) -> Case:
            sentence = " ".join((body.__doc__ or "").split())
            if not sentence:
                raise TypeError(f"case {body.__name__} needs a docstring: the sentence that it tries")
            case = Case(body.__name__, self.name, sentence, body, verbs, features, level, faces, hint, seconds)
            self.cases.append(case)
            return case

        return add
