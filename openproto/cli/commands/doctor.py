"""`doctor`: whether the backend works, step by step, and in words what to do where it does not."""

from __future__ import annotations

import platform
import time
import uuid
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Literal, TypeAlias

from openproto import AsyncMemory, NotFoundError, OpenProtoError, Provider, ProviderError
from openproto.cli.call import Call, Target, open_client
from openproto.cli.clean import clean_line
from openproto.cli.command import BACKEND, CARE, command
from openproto.cli.commands.providers import distribution_of
from openproto.cli.exits import Exit
from openproto.cli.reporting import explain_fault, show_traceback

Status: TypeAlias = Literal["ok", "warn", "fail"]
_STYLES: dict[Status, str] = {"ok": "green", "warn": "yellow", "fail": "bold red"}
_CONTENT = "The openproto doctor keeps a lighthouse lamp polished on Tuesdays"
_QUERY = "Which lamp does the doctor keep polished?"


@dataclass(slots=True)
class Check:
    """One thing looked at, and what to do where it is not well."""

    name: str
    status: Status = "ok"
    detail: str = ""
    remedy: str = ""


class _Stop(Exception):
    """A check failed, and those that follow need what it looked at."""


class Checkup:
    """The checks so far; each is printed as it ends."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self.checks: list[Check] = []
        self.status = Exit.OK

    @contextmanager
    def step(self, name: str) -> Iterator[Check]:
        """Run one check: the block fills in what it found; what it raises makes the check fail and ends the checkup."""
        check = Check(name)
        try:
            yield check
        except Exception as error:
            if self._call.common.debug:
                show_traceback(error, self._call.redact)
            fault = explain_fault(error)
            check.status, check.detail = "fail", fault.message
            check.remedy = fault.hint.partition("`openproto doctor`")[0].strip()  # which is where we are
            self.status = fault.status
            raise _Stop from error
        finally:
            self._show(check)

    def _show(self, check: Check) -> None:
        check.detail, check.remedy = self._call.redact(check.detail), self._call.redact(check.remedy)
        self.checks.append(check)
        out = self._call.out
        if out.as_json:
            return
        first = f"{check.status:<5} {check.name:<11} "
        out.hanging(first, clean_line(check.detail), _STYLES[check.status])
        if check.remedy:
            out.hanging(" " * len(first), f"-> {clean_line(check.remedy)}")


@command(CARE, takes=BACKEND)
async def doctor(call: Call) -> Exit:
    """Check the backend step by step: packages, connection, search, and a round trip with an invented user.

    The invented user's memories are always removed again; only entries of the audit log, which hold no
    content, remain. The exit status is that of the first check that fails.
    """
    checkup = Checkup(call)
    async with AsyncExitStack() as stack:
        with suppress(_Stop):
            await _examine(call, checkup, stack)
    if call.out.as_json:
        well = checkup.status is Exit.OK
        call.out.json({"ok": well, "checks": [asdict(check) for check in checkup.checks]})
    return checkup.status


async def _examine(call: Call, checkup: Checkup, stack: AsyncExitStack) -> None:
    with checkup.step("openproto") as check:
        check.detail = f"{version('openproto')}, Python {platform.python_version()}, {platform.system()}"
    with checkup.step("provider") as check:
        target = call.target()
        provider = target.make_provider()
        check.detail = f"{target.name}, from {distribution_of(target.name)}"
    with checkup.step("connection") as check:
        started = time.monotonic()
        memory = await stack.enter_async_context(open_client(provider, target.client_options))
        check.detail = f"opened in {(time.monotonic() - started) * 1000:.0f} ms"
    for name, detail in (await _about(provider, target)).items():
        with checkup.step(name) as check:
            check.detail = detail
    with checkup.step("embedder") as check:
        capabilities = await memory.capabilities()
        _judge_search(check, capabilities.features.vector_search, target)
    with checkup.step("verbs") as check:
        verbs = set(capabilities.verbs)
        check.detail = " ".join(capabilities.verbs)
        if missing := {"add", "get", "search", "delete"} - verbs:
            check.status = "warn"
            check.remedy = f"no round trip was made: the provider has no {', '.join(sorted(missing))}"
            return
    await _round_trip(checkup, memory)


async def _about(provider: Provider, target: Target) -> dict[str, str]:
    """Return what the provider says of itself and its data: its own words, or else where its options point."""
    if about := await provider.describe():
        return about
    places = [
        str(target.provider_options[name]) for name in ("path", "url", "base_url") if name in target.provider_options
    ]
    return {"data": ", ".join(places) or "in the provider's usual place"}


def _judge_search(check: Check, vectors: bool, target: Target) -> None:
    if vectors:
        check.detail = "search by meaning and by words"
    elif target.provider_options.get("embedder") == "none":
        check.detail = "none, as configured: search by words alone"
    else:
        check.status, check.detail = "warn", "none: search by words alone misses what is said in other words"
        check.remedy = (
            "pip install 'openproto[local]' adds an embedder, and `openproto reindex` vectors to what is stored"
        )


async def _round_trip(checkup: Checkup, memory: AsyncMemory) -> None:
    user = f"doctor-{uuid.uuid4().hex}"
    gone = False
    try:
        with checkup.step("add") as check:
            record = await memory.add(_CONTENT, user_id=user)
            if record.status in ("queued", "indexing"):
                (record,) = await memory.wait_for_ingest([record.id], user)
            check.detail = "stored one memory" + (
                f", embedded by {record.embedding_model}" if record.embedding_model else ""
            )
        with checkup.step("get") as check:
            if (await memory.get(record.id, user_id=user)).content != _CONTENT:
                raise ProviderError("the memory came back with another content than was stored; report it")
            check.detail = "read it back unchanged"
        with checkup.step("search") as check:
            if record.id not in [result.memory.id for result in await memory.search(_QUERY, user)]:
                raise ProviderError("a search for the memory's own words did not find it; report it")
            check.detail = "found it"
        with checkup.step("delete") as check:
            await memory.delete(record.id, user_id=user)
            gone = True
            try:
                await memory.get(record.id, user_id=user)
            except NotFoundError:
                check.detail = "removed it"
            else:
                raise ProviderError("the memory can still be read after it was deleted; report it")
    finally:
        if not gone:
            await _clean_up(checkup, memory, user)


async def _clean_up(checkup: Checkup, memory: AsyncMemory, user: str) -> None:
    with checkup.step("clean-up") as check:
        try:
            check.detail = f"removed {await memory.delete_all(user)} of the test's memories"
        except OpenProtoError as error:
            check.status, check.detail = "warn", f"the test's memory may be left behind: {error.message}"
            check.remedy = f"once it works: openproto delete --all --yes --user {user}"
