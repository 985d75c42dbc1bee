"""What writes: `add`, `put`, `update`, `delete`."""

from __future__ import annotations

import json
import sys
from datetime import datetime
from typing import Annotated, Any, Literal

import typer

from openproto.cli import show
from openproto.cli.call import Call
from openproto.cli.coerce import pairs
from openproto.cli.command import MEMORIES, command
from openproto.cli.options import Id, IfVersion, Scope, Tags, Yes, moment_option
from openproto.cli.reporting import Misuse

_MOST_BYTES = 500_000
"""More than any content has: its limit is then reported by the client or the provider."""

CLEARABLE = ("scope", "tags", "confidence", "valid_to", "supersedes", "source")

ScopePath = Annotated[
    str | None, typer.Option("--scope", "-s", metavar="PATH", help="Where it belongs, such as coding/preferences.")
]
TagNames = Annotated[list[str] | None, typer.Option("--tag", "-t", metavar="TAG", help="A tag; repeatable.")]
Confidence = Annotated[float | None, typer.Option(metavar="C", help="How sure it is, 0 to 1.")]
Source = Annotated[
    list[str] | None, typer.Option(metavar="FIELD=VALUE", help="Where it comes from: app=, type=, or ref=.")
]
Extensions = Annotated[
    list[str] | None, typer.Option("--extension", "-x", metavar="x-NAME=JSON", help="An extension; repeatable.")
]
Content = Annotated[str, typer.Argument(metavar="CONTENT", help="What to remember; - reads it from stdin.")]
ValidFrom = Annotated[datetime | None, moment_option("--valid-from", "When it starts being true.")]
ValidTo = Annotated[datetime | None, moment_option("--valid-to", "When it stops being true.")]
Superseded = Annotated[
    list[str] | None, typer.Option(metavar="ID", help="A memory that this one replaces; repeatable.")
]


@command(MEMORIES)
async def add(
    call: Call,
    content: Content,
    scope: ScopePath = None,
    tag: TagNames = None,
    source: Source = None,
    confidence: Confidence = None,
    valid_from: ValidFrom = None,
    valid_to: ValidTo = None,
    supersedes: Superseded = None,
    key: Annotated[str | None, typer.Option(metavar="KEY", help="Your own name for it; no other may have it.")] = None,
    on_duplicate: Annotated[
        Literal["keep", "skip", "supersede"] | None,
        typer.Option(
            metavar="HOW",
            help="What to do where a memory says the same already: keep both, skip the new one, or supersede the old.",
        ),
    ] = None,
    idempotency_key: Annotated[
        str | None, typer.Option(metavar="KEY", help="Adding again under the same key stores nothing new.")
    ] = None,
    extension: Extensions = None,
) -> None:
    """Store a memory.

    Prints its id, so that a script can keep it; with --json, the whole record.
    """
    user = call.user
    fields = _named_pairs(source, extension)
    text = _content(content)
    async with call.client() as memory:
        record = await memory.add(
            text,
            user_id=user,
            scope=scope,
            tags=tag,
            confidence=confidence,
            valid_from=valid_from,
            valid_to=valid_to,
            supersedes=supersedes,
            key=key,
            on_duplicate=on_duplicate,
            idempotency_key=idempotency_key,
            **fields,
        )
    show.show_written(call.out, "stored" if record.duplicate_of is None else "there already:", record)


@command(MEMORIES)
async def put(
    call: Call,
    content: Content,
    key: Annotated[str, typer.Option(metavar="KEY", help="Your own name for it.")],
    scope: ScopePath = None,
    tag: TagNames = None,
    source: Source = None,
    confidence: Confidence = None,
    valid_from: ValidFrom = None,
    valid_to: ValidTo = None,
    supersedes: Superseded = None,
    extension: Extensions = None,
    if_version: Annotated[
        str | None,
        typer.Option(metavar="V", help="Only if that is its version; absent: only if there is none of that key."),
    ] = None,
) -> None:
    """Write the memory of a key: a new one, or new values for all fields of the one there is.

    Prints its id; with --json, the whole record.
    """
    user = call.user
    fields = _named_pairs(source, extension)
    text = _content(content)
    async with call.client() as memory:
        record = await memory.put(
            text,
            user_id=user,
            key=key,
            if_version=if_version,
            scope=scope,
            tags=tag,
            confidence=confidence,
            valid_from=valid_from,
            valid_to=valid_to,
            supersedes=supersedes,
            **fields,
        )
    show.show_written(call.out, "stored" if record.updated_at is None else "replaced", record)


@command(MEMORIES)
async def update(
    call: Call,
    id: Id,
    content: Annotated[str | None, typer.Option(metavar="TEXT", help="The new content; - reads it from stdin.")] = None,
    scope: ScopePath = None,
    tag: TagNames = None,
    confidence: Confidence = None,
    valid_to: ValidTo = None,
    supersedes: Superseded = None,
    source: Source = None,
    extension: Extensions = None,
    if_version: IfVersion = None,
    clear: Annotated[
        list[str] | None,
        typer.Option(metavar="FIELD", help=f"Empty a field ({', '.join(CLEARABLE)}); repeatable."),
    ] = None,
) -> None:
    """Change the named fields of a memory and leave the others alone."""
    named = {
        "content": _content(content) if content is not None else None,
        "scope": scope,
        "tags": tag or None,
        "confidence": confidence,
        "valid_to": valid_to,
        "supersedes": supersedes or None,
        **_named_pairs(source, extension),
    }
    changes: dict[str, Any] = {name: value for name, value in named.items() if value is not None}
    for field in (name.replace("-", "_") for name in clear or ()):
        if field not in CLEARABLE:
            raise Misuse(f"--clear: {field!r} cannot be emptied; these can: {', '.join(CLEARABLE)}")
        if field in changes:
            raise Misuse(f"--clear {field} and a new value for it contradict each other")
        changes[field] = None
    if not changes:
        raise Misuse("nothing to change was named", "`openproto update --help` lists the fields")
    async with call.client() as memory:
        record = await memory.update(id, user_id=call.common.user, if_version=if_version, **changes)
    show.show_written(call.out, "updated", record)


@command(MEMORIES)
async def delete(
    call: Call,
    id: Annotated[str | None, typer.Argument(metavar="ID", help="The memory's id; or see --all.")] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Delete every memory of --user, or those in --scope and with --tag.")
    ] = False,
    scope: Scope = None,
    tag: Tags = None,
    if_version: IfVersion = None,
    yes: Yes = False,
) -> None:
    """Delete a memory for good, or all of a user's."""
    if everything == (id is not None):
        raise Misuse("delete wants either one ID, or --all")
    if not everything and (scope or tag):
        raise Misuse("--scope and --tag go with --all; an id alone says which memory")
    if everything and if_version is not None:
        raise Misuse("--if-version goes with an id")
    user = call.user if everything else call.common.user
    if everything:
        where = "".join(f" in {part!r}" for part in (scope, *(tag or ())) if part)
        call.confirm(f"delete every memory of {user!r}{where}?", yes=yes)
    async with call.client() as memory:
        if id is None:
            deleted = await memory.delete_all(user or "", scope=scope, tag=tag)
        else:
            await memory.delete(id, user_id=user, if_version=if_version)
            deleted = 1
    if call.out.as_json:
        call.out.json({"deleted": deleted})
    else:
        call.out.line(f"deleted {deleted}" if call.out.for_people else str(deleted))


def _content(text: str) -> str:
    """Return the text, or stdin's, less the line break that ends it, where it is `-`."""
    if text != "-":
        return text
    read = sys.stdin.buffer.read(_MOST_BYTES)
    try:
        return read.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        if len(read) == _MOST_BYTES:
            return read.decode(errors="replace")
        raise Misuse("what stands on stdin is not UTF-8 text") from None


def _named_pairs(source: list[str] | None, extension: list[str] | None) -> dict[str, Any]:
    """Return the keywords that `--source` and `--extension` spell."""
    fields: dict[str, Any] = {"source": pairs(source, "--source")} if source else {}
    return fields | {name: _json(name, text) for name, text in pairs(extension or (), "--extension").items()}


def _json(name: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise Misuse(f"--extension {name} wants JSON; a plain text stands in double quotes") from None
