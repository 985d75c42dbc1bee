"""The routes on namespaces and their settings, on profile buckets, and on the organization."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from openproto_conformance.emulators.emulator import Emulator
from openproto_conformance.emulators.messages import Answer, Refused, Request
from openproto_conformance.emulators.routes import route
from openproto_conformance.emulators.supermemory import answers
from openproto_conformance.emulators.supermemory.store import Namespace


class Namespaces(Emulator):
    """Keeps the namespaces, and what is set for each and for all."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.namespaces: dict[str, Namespace] = {}
        self.context: str | None = None

    def namespace(self, request: Request, *, must_exist: bool = False) -> Namespace:
        """Return the namespace of a request. Assumed: reading one that was never written finds it empty."""
        found = self.namespaces.get(request.params["namespace"])
        if found is None and must_exist:
            raise Refused(404, "Namespace not found")
        return found or Namespace(self.now(), self.now())

    @route("GET", "/ns/{namespace}/profile/buckets")
    def get_buckets(self, request: Request) -> Answer:
        """Return the buckets of a profile."""
        return Answer(200, {"buckets": self.namespace(request).buckets})

    @route("PUT", "/ns/{namespace}/profile/buckets")
    def set_buckets(self, request: Request) -> Answer:
        """Add buckets to a profile, or describe them anew."""
        found = self.namespace(request, must_exist=True)
        found.buckets.update(request.json["buckets"])
        return Answer(200, {"buckets": found.buckets})

    @route("DELETE", "/ns/{namespace}/profile/buckets")
    def delete_buckets(self, request: Request) -> Answer:
        """Remove buckets from a profile; unknown ones are passed over."""
        found = self.namespace(request, must_exist=True)
        for name in request.json["buckets"]:
            found.buckets.pop(name, None)
        return Answer(200, {"buckets": found.buckets})

    @route("GET", "/namespaces")
    @route("GET", "/ns")
    def list_namespaces(self, request: Request) -> Answer:
        """Return a page of the namespaces, newest first."""
        now = self.now()
        named = [item for item in self.namespaces.items() if request.first("q") in item[0]]
        page, beside = answers.page(sorted(named, key=lambda item: item[1].created_at, reverse=True), request)
        entries = [answers.namespace_entry(name, one, now) for name, one in page]
        return Answer(200, {"namespaces": entries, "pagination": beside})

    @route("GET", "/ns/{namespace}")
    def get_namespace(self, request: Request) -> Answer:
        """Return a namespace's settings."""
        found = self.namespace(request, must_exist=True)
        return Answer(200, answers.namespace(request.params["namespace"], found))

    @route("PATCH", "/ns/{namespace}")
    def update_namespace(self, request: Request) -> Answer:
        """Change a namespace's settings."""
        found = self.namespace(request, must_exist=True)
        found.supporting_context = request.json.get("supportingContext", found.supporting_context)
        found.updated_at = self.now()
        return Answer(200, answers.namespace(request.params["namespace"], found))

    @route("DELETE", "/ns/{namespace}")
    def delete_namespace(self, request: Request) -> Answer:
        """Remove a namespace with everything in it, or move what is in it to another."""
        name, target, now = request.params["namespace"], request.first("moveTo"), self.now()
        found = self.namespace(request, must_exist=True)
        if target == name:
            raise Refused(400, "a namespace cannot be moved to itself")
        del self.namespaces[name]
        if target:
            # Assumed: a move that is queued is done before anybody looks, and what is there already stays.
            there = self.namespaces.setdefault(target, Namespace(now, now))
            there.documents = {**found.documents, **there.documents}
            return Answer(202, {"status": "queued", "operationId": uuid4().hex, "namespace": name, "moveTo": target})
        deleted = {"deletedDocumentsCount": len(found.documents), "deletedMemoriesCount": len([*found.memories(now)])}
        return Answer(200, {"status": "deleted", "namespace": name, **deleted})

    @route("GET", "/organization")
    def get_organization(self, request: Request) -> Answer:
        """Return the organization's settings."""
        return Answer(200, {"organizationalContext": self.context, "namespaceCount": len(self.namespaces)})

    @route("PATCH", "/organization")
    def update_organization(self, request: Request) -> Answer:
        """Change the organization's settings."""
        self.context = request.json["organizationalContext"]
        return self.get_organization(request)
