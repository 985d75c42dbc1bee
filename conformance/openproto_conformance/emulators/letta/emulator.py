"""The routes: archives, their passages, and the search, with the faults that the real server has; no agents."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar

from openproto_conformance.emulators.emulator import Emulator
from openproto_conformance.emulators.letta.store import (
    HANDLES,
    Archive,
    Passage,
    archive_answer,
    new_passage,
    passage_answer,
)
from openproto_conformance.emulators.messages import Answer, Problem, Refused, Request
from openproto_conformance.emulators.routes import route
from openproto_conformance.emulators.similarity import similarity

UNKNOWN_ERROR = "An unknown error occurred"


class Letta(Emulator):
    """Letta 0.16.8.

    `default_embedding` is the model of archives that ask for none; without it these have none. `dimensions` is how many
    numbers come with each passage: 4096 with the real server, fewer here so that checking the answers takes no seconds.
    """

    name: ClassVar[str] = "letta"
    add_path: ClassVar[str] = "/v1/archives/*/passages*"
    document_file: ClassVar[str] = "letta-0.16.8-openapi.json"
    document_from: ClassVar[str] = "written by the server of letta 0.16.8 into the folder where it is started"
    worded_otherwise: ClassVar[frozenset[int]] = frozenset({422})
    breaks_off_after: ClassVar[frozenset[int]] = frozenset({500})

    def __init__(self, *, default_embedding: str | None = HANDLES[0], dimensions: int = 4, **options: Any) -> None:
        super().__init__(**options)
        self.default_embedding = default_embedding
        self.dimensions = dimensions
        self.archives: dict[str, Archive] = {}

    def provider_options(self) -> dict[str, Any]:
        """Return the options that point the openproto provider at it."""
        return {"base_url": self.url, "api_key": self.api_key}

    def error(self, status: int, message: str) -> Answer:
        """Return an error; a 500 tells nothing."""
        return Answer(status, {"detail": UNKNOWN_ERROR if status == 500 else message})

    def invalid(self, request: Request, problems: Sequence[Problem]) -> Answer:
        """Return a 422, whose detail is the text of a Python list that repeats what was sent."""
        detail = [
            {"type": "invalid", "loc": (problem.part, *problem.where), "msg": problem.message} for problem in problems
        ]
        examples = [
            f"{problem.where[0][:-3]}-123e4567-e89b-42d3-8456-426614174000"
            for problem in problems
            if problem.part == "path" and isinstance(problem.where[0], str)
        ]
        return Answer(422, {"trace_id": "", "detail": repr(detail), **({"examples": examples} if examples else {})})

    @route("GET", "/v1/health/", public=True)
    def health(self, request: Request) -> Answer:
        """Say that all is well, to anybody."""
        return Answer(200, {"version": "0.16.8", "status": "ok"})

    @route("POST", "/v1/archives/")
    def create_archive(self, request: Request) -> Answer:
        """Create an archive, whatever others are called."""
        asked, now = request.json, self._now()
        handle = asked.get("embedding") or self.default_embedding
        if handle not in (None, *HANDLES):
            raise Refused(400, f"INVALID_ARGUMENT: Embedding model {handle} not found")
        archive = Archive(asked["name"], asked.get("description"), handle, now, now)
        self.archives[archive.id] = archive
        return Answer(200, archive_answer(archive))

    @route("GET", "/v1/archives/")
    def list_archives(self, request: Request) -> Answer:
        """Return archives by age; `after` and `before` name archives in that order."""
        found = [*self.archives.values()]
        if request.first("order", "desc") == "desc":
            found.reverse()
        ids = [archive.id for archive in found]
        for cursor in ("after", "before"):
            if (id := request.first(cursor)) and id not in ids:
                raise Refused(404, f"No Archive found with id {id}")
        start = ids.index(request.first("after")) + 1 if request.first("after") else 0
        end = ids.index(request.first("before")) if request.first("before") else None
        name = request.query.get("name")
        named = [archive for archive in found[start:end] if name is None or archive.name == name[-1]]
        return Answer(200, [archive_answer(archive) for archive in named[: int(request.first("limit", "50"))]])

    @route("GET", "/v1/archives/{archive_id}")
    def retrieve_archive(self, request: Request) -> Answer:
        """Return an archive."""
        return Answer(200, archive_answer(self._archive(request.params["archive_id"])))

    @route("PATCH", "/v1/archives/{archive_id}")
    def modify_archive(self, request: Request) -> Answer:
        """Change the name or the description; null changes nothing."""
        archive = self._archive(request.params["archive_id"])
        archive.name = request.json.get("name") or archive.name
        archive.description = request.json.get("description") or archive.description
        archive.updated_at = self._now()
        return Answer(200, archive_answer(archive))

    @route("DELETE", "/v1/archives/{archive_id}")
    def delete_archive(self, request: Request) -> Answer:
        """Delete an archive with its passages."""
        del self.archives[self._archive(request.params["archive_id"]).id]
        return Answer(204)

    @route("POST", "/v1/archives/{archive_id}/passages")
    def create_passage(self, request: Request) -> Answer:
        """Write a passage; a text may be empty."""
        archive = self._archive(request.params["archive_id"])
        (passage,) = self._write(archive, [request.json])
        return Answer(200, passage_answer(archive, passage, self.dimensions))

    @route("POST", "/v1/archives/{archive_id}/passages/batch")
    def create_passages(self, request: Request) -> Answer:
        """Write passages, at one moment those that name none; without an embedding model that is beyond the server."""
        asked = request.json["passages"]
        archive = self._archive(request.params["archive_id"]) if asked else None
        if archive is None:
            return Answer(200, [])
        if archive.handle is None:
            raise Refused(500, UNKNOWN_ERROR)
        written = self._write(archive, asked)
        return Answer(200, [passage_answer(archive, passage, self.dimensions) for passage in written])

    @route("DELETE", "/v1/archives/{archive_id}/passages/{passage_id}")
    def delete_passage(self, request: Request) -> Answer:
        """Delete a passage of this archive."""
        archive, id = self._archive(request.params["archive_id"]), request.params["passage_id"]
        if archive.passages.pop(id, None) is None:
            if any(id in other.passages for other in self.archives.values()):
                raise Refused(400, f"Passage {id} does not belong to archive {archive.id}")
            raise Refused(404, f"Agent passage with id {id} not found in database.")
        return Answer(204)

    @route("POST", "/v1/passages/search")
    def search(self, request: Request) -> Answer:
        """Return passages: with a query the nearest, without one the oldest; tags are looked at after the limit.

        The score is always 0. An archive that is gone is empty, and missed only where a query is to be embedded.
        """
        asked = request.json
        query, archive_id = asked.get("query"), asked.get("archive_id")
        if archive_id is None:
            # Assumed: there are no agents. A search through everything needs the embedding model of one.
            raise Refused(404, "Agent not found") if asked.get("agent_id") else Refused(500, UNKNOWN_ERROR)
        if archive_id not in self.archives:
            if query:
                self._archive(archive_id)
            return Answer(200, [])
        archive = self.archives[archive_id]
        start, end = (_moment(asked.get(name)) for name in ("start_date", "end_date"))
        found = [
            passage
            for passage in archive.passages.values()
            if (start is None or start <= passage.created_at) and (end is None or passage.created_at <= end)
        ]
        if not query:
            found.sort(key=lambda passage: (passage.created_at, passage.id))
        elif archive.handle is not None:
            found.sort(key=lambda passage: -similarity(query, passage.text))
        else:
            found = [passage for passage in found if query.lower() in passage.text.lower()]
        found = found[: asked.get("limit", 50)]
        if tags := set(asked.get("tags") or ()):
            enough = tags.issubset if asked.get("tag_match_mode") == "all" else tags.intersection
            found = [passage for passage in found if enough(passage.tags or ())]
        passages = [passage_answer(archive, passage, self.dimensions) for passage in found]
        return Answer(200, [{"passage": passage, "score": 0.0, "metadata": {}} for passage in passages])

    def _archive(self, id: str) -> Archive:
        if id not in self.archives:
            raise Refused(404, f"Archive not found with id='['{id}']'")
        return self.archives[id]

    def _write(self, archive: Archive, asked: Sequence[dict[str, Any]]) -> list[Passage]:
        now = self._now()
        try:
            passages = [new_passage(one, now) for one in asked]
        except ValueError as error:
            raise Refused(400, str(error)) from error
        archive.passages |= {passage.id: passage for passage in passages}
        return passages

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self.now(), UTC)


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
