"""Hosted memory services on loopback: what the vendors' real SDKs talk to in tests, over real sockets.

An emulator is an HTTP server in a thread of its own. It keeps state, takes its time where the vendor does, checks every
request and every answer against the vendor's own OpenAPI document, fails on demand, and counts what it sees::

    with Supermemory() as emulator:
        client = supermemory.Supermemory(base_url=emulator.url, api_key=emulator.api_key)
        emulator.faults.next(Status(429, retry_after=1), path="/ns/*")  # the next such request, once
        with emulator.faults.always(Hang(), method="POST"):             # all of them, until the block ends
            ...
        emulator.counters.wait_for(lambda seen: seen.disconnects == 1)  # also requests, by_route, open, in_flight
        assert emulator.violations == []                                # answers that the document forbids

It proves what an SDK sends and how an adapter takes the answers; it proves nothing about the vendor's own servers.
Where no document states a behaviour, the emulator says "assumed" at that line.

How to write another, in one file beside this one, with a line in `registry.py` and a row in docs/emulators.md:

1. Subclass `Emulator`; set `name` (as `openproto emulate NAME` has it, and as the provider is registered), and
   `add_path`, a pattern for the paths that an `add` POSTs to (`stalled()` holds those up for the conformance suite).
2. Set `document_file` to the name of the OpenAPI document in the folder that OPENPROTO_SPECS names, and `document_from`
   to where a reader gets it. Where the vendor publishes none leave both out: then nothing is checked.
3. `provider_options()` returns the options that point the openproto provider at `self.url`.
4. `authorized(request)` says whether the credentials will do (default: `Authorization: Bearer <api_key>`).
5. `error(status, message)` returns an error in the vendor's own shape; faults, 401, 404, and 405 use it too.
6. `invalid(request, problems)` answers what the document forbids (default: `error(400, ...)`); it returns None for
   what the vendor accepts all the same, with the reason at that line.
7. A handler is a plain method under `@route("GET", "/v1/notes/{id}")`, with the path exactly as in the document. It
   gets a `Request` (`params`, `query`, `headers`, `json`) and returns `Answer(status, body)`; to end early it raises
   `Refused(404, "...")`. Handlers run one at a time: no locks, no awaits, and what they change has been changed before
   any delay, so that a cancelled write may well have happened, as with the vendor.
8. `@route(..., public=True)` needs no credentials. `@route(..., undocumented="why")` is not in the document.
9. What becomes true later (queued, then done) is computed from `self.now()` and `self.lag` when it is asked for.
10. `similarity(query, text)` is the one score of all emulators, by words; `relevance` adds meaning to it. State lives
   in attributes of the instance.
11. In its tests use the vendor's SDK, end with `assert emulator.violations == []`, and break an answer once on purpose.
"""

from openproto_conformance.emulators.emulator import Emulator
from openproto_conformance.emulators.faults import (
    CloseConnection,
    Drip,
    Fault,
    Hang,
    HtmlWith200,
    Latency,
    ResetConnection,
    Status,
    TruncatedJson,
)
from openproto_conformance.emulators.messages import Answer, Problem, Refused, Request
from openproto_conformance.emulators.routes import route
from openproto_conformance.emulators.similarity import similarity

__all__ = [
    "Answer",
    "CloseConnection",
    "Drip",
    "Emulator",
    "Fault",
    "Hang",
    "HtmlWith200",
    "Latency",
    "Problem",
    "Refused",
    "Request",
    "ResetConnection",
    "Status",
    "TruncatedJson",
    "route",
    "similarity",
]
