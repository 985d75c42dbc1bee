"""`import`: memories from what people have, each exactly once however often it is run."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Annotated, BinaryIO, TypeAlias

import typer

from openproto import (
    AsyncMemory,
    ConflictError,
    InvalidRequestError,
    MemoryInput,
    MemoryRecord,
    NotFoundError,
    OpenProtoError,
    PayloadTooLargeError,
    UnsupportedCapabilityError,
)
from openproto.cli.call import Call
from openproto.cli.command import MOVING, command
from openproto.cli.exits import Exit
from openproto.cli.output import Progress, count
from openproto.cli.reporting import Misuse
from openproto.portable.dated_line import DatedLines, Written
from openproto.portable.encoding import as_utf8
from openproto.portable.formats import NAMES, Recognised, recognise
from openproto.portable.formats.own import OWN
from openproto.portable.record_line import Line, UserAndId, parse, survey
from openproto.requests import build

BATCH = 250

CLOCKS_DIFFER = timedelta(seconds=2)
"""How much a server's clock may be behind: a record that is older than this import was there before it."""

_LINE_FAULTS = (
    ConflictError,
    InvalidRequestError,
    NotFoundError,
    PayloadTooLargeError,
    UnsupportedCapabilityError,
)
"""What may be wrong with one line; any other error is the backend's, and the next line would meet it too."""


@command(MOVING, name="import")
async def import_(
    call: Call,
    file: Annotated[str, typer.Argument(metavar="FILE", help="What to read; - is stdin.")],
    user: Annotated[
        str | None,
        typer.Option(
            "--user",
            "-u",
            metavar="ID",
            help="Give every line to this user, also where it names another. OPENPROTO_USER is not read here.",
        ),
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(metavar="NAME", help=f"Read it as this, whatever it looks like: {', '.join(NAMES)}."),
    ] = None,
    turns: Annotated[
        bool, typer.Option("--turns", help="Store conversations, each turn of each side word for word.")
    ] = False,
    extract: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="Ask a language model, openai/NAME or anthropic/NAME, what of conversations is worth keeping.",
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check every line and store nothing.")] = False,
) -> Exit:
    """Store memories from a file: what `export` wrote, or an export of another program, recognised by its content.

    What `export` wrote is stored as it was, with its id, moments, and supersession, and another program's memory with
    the date on which it was made; a memory that is there already is left alone. Where the provider cannot take that,
    each memory is a new one of today. A line that cannot be stored is reported and the others go on. Running it again,
    after an interruption too, stores nothing twice.
    """
    if format is not None and format not in NAMES:
        raise Misuse(f"--format knows no {format!r}; it is one of {', '.join(NAMES)}")
    with opened(file) as source:
        found = recognise(source, format)
        if found.name != OWN.name:
            call.out.note(f"taken for {found.described} (--format {found.name}): {found.why}")
        if found.holds_conversations and not (turns or extract):
            raise Misuse(
                f"the file holds {found.described}, not memories",
                "--turns stores what each side said, word for word; --extract MODEL asks a language model for facts",
            )
        if extract is not None and (turns or dry_run or user is None or not found.holds_conversations):
            raise Misuse("--extract is for conversations, with --user, and without --turns and --dry-run")
        first = next((fields for _, fields in found.entries() if isinstance(fields, dict)), {})
        if found.name != OWN.name and user is None and first and not first.get("user_id"):
            raise Misuse(f"{found.described} in the file do not say whose they are", "--user ID says it")
        if extract is not None and user is not None:
            return await _extract(call, user, extract, found)
        work = _Import(call, user, found)
        with call.out.progress("checking" if dry_run else "importing") as bar:
            if dry_run:
                work.check(bar)
            else:
                async with call.client() as memory:
                    await work.run(memory, bar)
    work.report("valid" if dry_run else "stored")
    return Exit.FAILED if work.failed else Exit.OK


async def _extract(call: Call, user: str, model: str, found: Recognised) -> Exit:
    # Imported here: few imports ask a model, and what asks one takes its time.
    from openproto.cli.commands.extracting import Extracting

    work = Extracting(call, user, model, found)
    with call.out.progress("extracting") as bar:
        async with call.client() as memory:
            await work.run(memory, bar)
    work.report()
    return Exit.FAILED if work.failed else Exit.OK


_Numbered: TypeAlias = tuple[int, Line | InvalidRequestError]


@dataclass(frozen=True, slots=True)
class _Link:
    line: Line
    record: MemoryRecord


class _Import:
    """One import: its counts, the new ids of superseded memories, and the links to make when all are stored."""

    def __init__(self, call: Call, user: str | None, found: Recognised) -> None:
        self._call = call
        self._user = user
        self._found = found
        self._survey = survey(found.entries(), user)
        self._dated = DatedLines(found.entries(), user, exported=found.name == OWN.name)
        self._adds_anew = False
        self._began = datetime.now(UTC)
        self._absent = set(self._survey.superseding)
        self._new_ids: dict[UserAndId, str] = {}
        self._links: list[_Link] = []
        self.read = self.good = self.there = self.failed = self.linked = 0

    def check(self, bar: Progress) -> None:
        """Validate every line."""
        for number, line in self._parsed(bar):
            try:
                if isinstance(line, InvalidRequestError):
                    raise line
                build(MemoryInput, **{name: value for name, value in line.item.items() if name != "idempotency_key"})
                if self._dated.is_dated(line):
                    self._dated.record(line)
                self.good += 1
            except InvalidRequestError as error:
                self._bad(number, error)

    async def run(self, memory: AsyncMemory, bar: Progress) -> None:
        """Store every line, then restore what supersedes what."""
        parsed = self._parsed(bar)
        try:
            while batch := [*islice(parsed, BATCH)]:
                restored = await self._restore(memory, batch)
                new = [line for place, (_, line) in enumerate(batch) if place not in restored]
                items = [line.item for line in new if isinstance(line, Line)]
                outcomes = iter(await memory.add_many(items))
                for place, (number, line) in enumerate(batch):
                    if not isinstance(line, Line):
                        self._bad(number, line)
                    elif place not in restored:
                        self._take(line, next(outcomes))
                    else:
                        self._take_restored(line, restored[place])
                self._call.resume = f"{count(self.good, 'memory')} stored, and the same command stores nothing twice"
            for link in self._links:
                await self._link(memory, link)
        except OpenProtoError:
            self._call.out.note(f"stopped after {count(self.good, 'memory')}; the same command stores nothing twice")
            raise

    def report(self, done: str) -> None:
        """Print the counts."""
        if self._call.out.as_json:
            counts = {"failed": self.failed, "links": self.linked, "exists": self.there}
            self._call.out.json({"format": self._found.name, "lines": self.read, done: self.good, **counts})
            return
        said = [f"{count(self.good, 'memory')} {done}"]
        said += [f"{self.there} there already"] if self.there else []
        said += [f"{count(self.linked, 'supersession')} restored"] if self.linked else []
        said += [f"{count(self.failed, self._found.unit)} failed"] if self.failed else []
        self._call.out.line(", ".join(said))
        if self._absent:
            self._call.out.note(
                f"not in the file: {count(len(self._absent), 'memory')} that superseded others; those are current here"
            )

    def _parsed(self, bar: Progress) -> Iterator[_Numbered]:
        for number, fields in self._found.entries():
            self.read += 1
            bar(self.read, self._survey.lines)
            try:
                if isinstance(fields, InvalidRequestError):
                    raise fields
                line = parse(number, fields, self._user)
            except InvalidRequestError as error:
                yield number, error
            else:
                if line.id is not None:
                    self._absent.discard(line.ref(line.id))
                yield number, line

    async def _restore(
        self, memory: AsyncMemory, batch: Sequence[_Numbered]
    ) -> Mapping[int, Written | InvalidRequestError]:
        """Write as they were what lines say when they were made; return what became of each by its place."""
        lines = {place: line for place, (_, line) in enumerate(batch) if isinstance(line, Line)}
        dated = {place: line for place, line in lines.items() if self._dated.is_dated(line)}
        if not dated or self._adds_anew:
            return {}
        found = await self._dated.write(memory, dated)
        if found is None:
            self._adds_anew = True
            self._call.out.note("ids and dates become new here, where none can be kept; x-imported has the old ones")
        return found or {}

    def _take_restored(self, line: Line, outcome: Written | InvalidRequestError) -> None:
        if isinstance(outcome, InvalidRequestError):
            self._bad(line.number, outcome)
            return
        if line.superseded_by is not None:
            self._absent.discard(line.ref(line.superseded_by))  # it is superseded here too
        self.good += outcome.is_new
        self.there += not outcome.is_new
        self._remember(line, outcome.record)
        if line.supersedes and outcome.is_new:
            self._links.append(_Link(line, outcome.record))

    def _take(self, line: Line, outcome: MemoryRecord | OpenProtoError) -> None:
        if isinstance(outcome, _LINE_FAULTS):
            self._bad(line.number, outcome)
        elif isinstance(outcome, OpenProtoError):
            raise outcome
        else:
            is_new = outcome.created_at >= self._began - CLOCKS_DIFFER
            self.good += is_new
            self.there += not is_new
            self._remember(line, outcome)
            if line.supersedes:
                self._links.append(_Link(line, outcome))

    def _remember(self, line: Line, record: MemoryRecord) -> None:
        if line.id is not None and line.ref(line.id) in self._survey.superseded:
            self._new_ids[line.ref(line.id)] = record.id

    async def _link(self, memory: AsyncMemory, link: _Link) -> None:
        # An exported record's other ids name memories of the store it came from; x-imported keeps them.
        found = [(id, self._new_ids.get(link.line.ref(id))) for id in link.line.supersedes]
        ids = [new or id for id, new in found if new is not None or link.line.id is None]
        if not ids:
            return
        try:
            if not set(ids) <= set(link.record.supersedes):  # a repeated import finds its links made
                await memory.update(link.record.id, user_id=link.record.user_id, supersedes=ids)
            self.linked += 1
        except _LINE_FAULTS as error:
            self._bad(link.line.number, type(error)(f"is stored, but not what it supersedes: {error.message}"))

    def _bad(self, number: int, error: OpenProtoError) -> None:
        self.failed += 1
        if self._call.out.as_json:
            self._call.out.warn(json.dumps({**error.to_envelope(), self._found.unit: number}))
        else:
            self._call.out.warn(f"{self._found.unit} {number}: {error.message}")


@contextmanager
def opened(file: str) -> Iterator[BinaryIO]:
    """Open a file as UTF-8, for reading it more than once."""
    with ExitStack() as stack:
        source = sys.stdin.buffer if file == "-" else stack.enter_context(open(file, "rb"))
        yield stack.enter_context(as_utf8(source, seekable=file != "-" and source.seekable()))
