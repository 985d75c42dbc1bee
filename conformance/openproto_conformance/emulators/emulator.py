"""`Emulator`: what every emulated vendor has in common."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self
from uuid import uuid4

from openproto_conformance.emulators.counters import Counters
from openproto_conformance.emulators.document import VARIABLE, find_document, read_document
from openproto_conformance.emulators.faults import Faults, Hang
from openproto_conformance.emulators.messages import Answer, Problem, Refused, Request
from openproto_conformance.emulators.routes import Route, find, routes_of
from openproto_conformance.emulators.server import Server

CHECKED_ITEMS = 5
OUR_FAULT = 599
"""The status of an answer that would have been wrong: no vendor has it, so that nobody takes it for one of theirs."""


class Emulator:
    """An emulated vendor on a port of 127.0.0.1, from `start` (or `with`) to `stop`.

    `lag` is how many seconds the vendor takes to process what it has accepted. The package's docstring says what a
    subclass defines.
    """

    name: ClassVar[str]
    api_key: ClassVar[str] = "emulated-api-key"
    add_path: ClassVar[str] = "*"
    """A shell pattern for the paths that the provider's `add` POSTs to."""
    beside_a_file: ClassVar[bool] = False
    """Whether the provider needs a file of its own beside the vendor, its option `path`, to have every verb."""
    document_file: ClassVar[str] = ""
    document_from: ClassVar[str] = ""
    worded_otherwise: ClassVar[frozenset[int]] = frozenset()
    """Statuses of errors that the vendor was seen to word otherwise than its own document says."""
    breaks_off_after: ClassVar[frozenset[int]] = frozenset()
    """Statuses after which the vendor closes the connection without a word, so that the next request on it fails."""

    def __init__(self, *, lag: float = 0.03, document: Path | None = None) -> None:
        self.lag = lag
        self.faults = Faults()
        self.counters = Counters()
        self.violations: list[str] = []
        """Answers that the document forbids, and handlers that raised: bugs of the emulator."""
        self._spec_path = document or find_document(self.document_file)
        self._spec = read_document(self._spec_path) if self._spec_path else None
        self._routes = routes_of(type(self))
        if self._spec is not None:
            for route in self._routes:
                if not route.undocumented:
                    self._spec.operation(route.method, route.path)
        self._server = Server(f"openproto-emulator-{self.name}", self)

    def provider_options(self) -> dict[str, Any]:
        """Return the options that point the openproto provider of this name at the running emulator."""
        raise NotImplementedError(f"{type(self).__name__} must define provider_options()")

    def authorized(self, request: Request) -> bool:
        """Say whether a request carries the right credentials."""
        return request.headers.get("authorization") == f"Bearer {self.api_key}"

    def error(self, status: int, message: str) -> Answer:
        """Return an error as the vendor words it."""
        return Answer(status, {"error": message})

    def invalid(self, request: Request, problems: Sequence[Problem]) -> Answer | None:
        """Answer a request that the document forbids; None lets it through, as the vendor would."""
        return self.error(400, "; ".join(_worded(problem) for problem in problems))

    def headers(self) -> Mapping[str, str]:
        """Return the headers that the vendor sends with every answer."""
        return {"x-request-id": uuid4().hex}

    @property
    def url(self) -> str:
        """Where it is, without a slash at the end; a RuntimeError unless it is running."""
        return f"http://127.0.0.1:{self._server.port}"

    @property
    def checks(self) -> bool:
        """Whether there is a document to check against."""
        return self._spec is not None

    @property
    def checked_against(self) -> str:
        """Against which document requests and answers are checked, or why they are not, in words."""
        if self._spec_path is not None:
            return f"checked against {self._spec_path.name}"
        if not self.document_file:
            return "unchecked: the vendor publishes no OpenAPI document"
        return f"unchecked: {VARIABLE} names no folder with {self.document_file}, which is {self.document_from}"

    def stalled(self) -> AbstractContextManager[object]:
        """Return a context under which no `add` is finished, as `ProviderSuite.stalled` wants it."""
        return self.faults.always(Hang(), method="POST", path=self.add_path)

    def now(self) -> float:
        """Return the emulator's clock, in seconds since the epoch."""
        return time.time()

    def start(self, port: int = 0) -> Self:
        """Listen on `port`, or on a free one; an OSError where that is taken."""
        self._server.start(port)
        return self

    def stop(self) -> None:
        """Cut every connection and end the thread; may be called twice."""
        self._server.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def respond(self, request: Request) -> Answer:
        """Answer a request, the whole way: credentials, document, handler, document again."""
        route, params, known = find(self._routes, request.method, request.path)
        if route is None:
            return self.error(405, "Method not allowed") if known else self.error(404, "Not found")
        self.counters.routed(str(route))
        request = replace(request, params=params)
        try:
            return self._checked(route, self._handled(route, request))
        except Exception as error:
            return self._our_fault(route, f"{type(error).__name__}: {error}")

    def _handled(self, route: Route, request: Request) -> Answer:
        if not (route.public or self.authorized(request)):
            return self.error(401, "Unauthorized")
        problems: list[Problem] = []
        if request.body and "json" in request.headers.get("content-type", ""):
            try:
                request = replace(request, json=json.loads(request.body))
            except ValueError:
                problems.append(Problem("body", (), "malformed JSON"))
        if self._spec is not None and not route.undocumented and not problems:
            problems += self._spec.operation(route.method, route.path).problems(request)
        if problems and (answer := self.invalid(request, problems)) is not None:
            return answer
        try:
            answer = getattr(self, route.handler)(request)
        except Refused as refused:
            answer = self.error(refused.status, refused.message)
        return answer

    def _checked(self, route: Route, answer: Answer) -> Answer:
        if self._spec is None or route.undocumented or answer.status in self.worded_otherwise:
            return answer
        few = replace(answer, body=_with_fewer_items(answer.body))
        complaint = self._spec.operation(route.method, route.path).complaint(few)
        return self._our_fault(route, f"{answer.status}: {complaint}") if complaint else answer

    def _our_fault(self, route: Route, what: str) -> Answer:
        self.violations.append(f"{route}: {what}")
        return Answer(OUR_FAULT, {"emulator": self.name, "violation": self.violations[-1]})


def _with_fewer_items(body: Any) -> Any:
    """Return what is to be checked: a list's items are made by the same lines, and checking them all takes long."""
    if isinstance(body, dict):
        return {name: value[:CHECKED_ITEMS] if isinstance(value, list) else value for name, value in body.items()}
    return body[:CHECKED_ITEMS] if isinstance(body, list) else body


def _worded(problem: Problem) -> str:
    return f"{'.'.join(map(str, problem.where)) or problem.part}: {problem.message}"
