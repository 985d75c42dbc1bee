"""What holds for one verb holds for each: the loop is free, nothing is told, every caller has its own answer."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from openproto import OpenProtoError
from openproto_conformance import outside
from openproto_conformance.bench import Bench
from openproto_conformance.case import Area
from openproto_conformance.checks import Violation, ensure, equal
from openproto_conformance.every_call import questions
from openproto_conformance.leaks import open_files
from openproto_conformance.pauses import STALL_MS, Run, control, stall_of

area = Area("every verb")

MARKER = "xyzzy-plugh-0815"

AT_ONCE, QUICK_AT_ONCE = 1000, 100
CALLS = 6
MOST_FILES = 64
"""What may be open at once beyond a descriptor for each thread."""


@area.case(
    "add", "get", faces=("async",), seconds=120, hint="blocking I/O, hashing, or embedding on the loop: a thread"
)
async def the_loop_is_never_blocked(bench: Bench) -> None:
    """Opening, closing, and every verb and batch leave the loop free: it never stands still for 20 ms."""
    number = bench.size(100, 25)
    asked = await questions(bench, bench.client, CALLS)
    user, content = bench.user("heavy"), "a longer note about rivers and their names " * 100

    async def adds() -> None:
        with bench.backend_stalled() as stalled:
            calls = [asyncio.ensure_future(bench.client.add(f"{content}{n}", user_id=user)) for n in range(number)]
            await asyncio.wait(calls, timeout=0.3 if stalled else 10.0)
        await asyncio.gather(*calls)

    async def batch() -> None:
        await bench.client.add_many([{"content": f"{content}{n}", "user_id": user} for n in range(number)])

    async def opening_and_closing() -> None:
        await (await bench.open()).close()

    def calls_of(name: str) -> Run:
        # A delete can be asked for once: what comes of it does not matter here.
        return lambda: asyncio.gather(*(question.call() for question in asked[name]), return_exceptions=True)

    runs: dict[str, Run] = {
        "add of many at once": adds,
        "a large add_many": batch,
        "opening and closing": opening_and_closing,
    }
    runs |= {name: calls_of(name) for name in asked}
    async with control(content, number) as without:
        for name, run in runs.items():
            stall = await stall_of(run, without)
            bench.measure("longest_stall_ms", stall)
            stood = f"{name}: the loop stood still for {stall:.0f} ms at best, of {STALL_MS:g} ms at most"
            ensure(stall < STALL_MS, stood)


@area.case("add", "get", seconds=120, hint="what two calls share: a buffer, an attribute, a reply taken for another's")
async def every_answer_is_its_callers(bench: Bench) -> None:
    """Of a thousand calls at once of each verb, each is answered, and with what it asked for; threads stay few."""
    count = bench.size(AT_ONCE, QUICK_AT_ONCE)
    client = await bench.open(timeout=60.0 * bench.backend.patience)
    for name, asked in (await questions(bench, client, count)).items():
        own = 32 if bench.face == "sync" else 0  # the callers of the sync face are the suite's own
        threads, files = threading.active_count(), len(open_files())
        calls = [asyncio.ensure_future(question.call()) for question in asked]
        most_threads = most_files = 0
        while not all(call.done() for call in calls):
            most_threads = max(most_threads, threading.active_count() - threads)
            await asyncio.sleep(0.002)
        most_files = max(most_files, len(open_files()) - files)
        for question, call in zip(asked, calls, strict=True):
            if (error := call.exception()) is not None:
                raise Violation(f"one of {count} calls of {name} at once failed: {error}") from error
            try:
                question.check(call.result())
            except Violation as violation:
                raise Violation(f"one of {count} calls of {name} at once had another's answer: {violation}") from None
        most = bench.backend.threads
        ensure(most_threads <= most + own, f"{name}: there were {most_threads - own} threads, of at most {most}")
        ensure(most_files <= most + MOST_FILES, f"{name}: {most_files} files were left open")


@area.case("add", "get", hint="log lines, messages, and reprs of each verb: they name fields and ids, never values")
async def nothing_private_is_told_by_any_verb(bench: Bench) -> None:
    """No log line at any level, no error, and no repr of a client holds content, whichever verb had it."""
    user = bench.user()
    with log_lines() as lines:
        client = await bench.open()
        for name, asked in (await questions(bench, client, 2, MARKER)).items():
            for question in asked:
                await question.call()
            check_untold(lines, f"{name} logs")
        await client.add(MARKER, user_id=user, idempotency_key="key-1")
        items = [{"content": f"{MARKER} {n}", "user_id": user, "idempotency_key": "key-1"} for n in range(2)]
        outcomes = await client.add_many(items)
        equal([getattr(o, "code", None) for o in outcomes], ["conflict"] * 2, "the outcomes of a used key in a batch")
        again = client.add(f"{MARKER} 2", user_id=user, idempotency_key="key-1")
        refused = await asyncio.gather(again, return_exceptions=True)
        check_untold([repr(outcome) for outcome in (*refused, *outcomes)], "a conflict tells")
        check_untold([repr(client), repr(bench.provider_of(client))], "a repr tells")
        await client.close()
    check_untold(lines, "closing logs")
    check_secrets(bench, "\n".join(lines))


def check_secrets(bench: Bench, text: str) -> None:
    """Find fault with a text that holds a secret of the provider, or a URL with a password."""
    for secret in {*bench.backend.secrets, *outside.secrets_of(bench.provider_of(bench.client))}:
        ensure(secret not in text, "a message, a log line, or a repr holds one of the provider's secrets")
    ensure(not outside.CREDENTIALS.search(text), "a message, a log line, or a repr holds a URL with a password")


@area.case("add", "get", hint="what a call holds while it fails: release it in a finally, whatever was raised")
async def every_error_gives_its_slot_back(bench: Bench) -> None:
    """On a pool of one, after many failed calls of each kind, the next call works."""
    client = await bench.open(bench.backend.pooled(1))
    user = bench.user()
    record = await client.add("tea", user_id=user, idempotency_key="key-1")
    verbs = bench.capabilities.verbs
    failing: dict[str, Callable[[], Awaitable[Any]]] = {
        "an add under a used key": lambda: client.add("milk", user_id=user, idempotency_key="key-1"),
        "get of an unknown id": lambda: client.get("no-such-id"),
        "get of another's record": lambda: client.get(record.id, user_id=bench.user("bob")),
        "delete of an unknown id": lambda: client.delete("no-such-id"),
    }
    if "update" in verbs:
        failing["update of an unknown id"] = lambda: client.update("no-such-id", content="milk")
        failing["update of another's record"] = lambda: client.update(record.id, user_id="nobody", content="milk")
    if "list" in verbs:
        failing["list after a foreign cursor"] = lambda: client.list(user, cursor="no-such-cursor")
    if bench.capabilities.features.supports_supersession:
        failing["an add that supersedes nothing"] = lambda: client.add("x", user_id=user, supersedes=["no-such-id"])
    for name, call in failing.items():
        outcomes = await asyncio.gather(*(call() for _ in range(CALLS)), return_exceptions=True)
        for outcome in outcomes:
            ensure(isinstance(outcome, OpenProtoError), f"{name}: wanted an error, got {type(outcome).__name__}")
        try:
            async with asyncio.timeout(5.0 * bench.backend.patience):
                equal((await client.get(record.id)).id, record.id, f"the record after {name}")
        except TimeoutError as error:
            raise Violation(f"after {CALLS} times {name} the next get is not answered") from error


def check_untold(texts: list[str], what: str) -> None:
    """Fail where one of the texts holds content."""
    ensure(not any(MARKER in text for text in texts), f"{what} memory content")


@contextlib.contextmanager
def log_lines() -> Iterator[list[str]]:
    """Collect every line that anybody logs inside, at any level."""
    lines: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(f"{record.getMessage()} {record.exc_info or ''}")

    root, collector = logging.getLogger(), Collector()
    level = root.level
    root.addHandler(collector)
    root.setLevel(logging.DEBUG)
    try:
        yield lines
    finally:
        root.setLevel(level)
        root.removeHandler(collector)
