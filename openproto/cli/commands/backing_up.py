"""`backup`: a whole store, or some of its users, in one file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from openproto.cli.call import Call, open_client
from openproto.cli.command import BACKEND, MOVING, command
from openproto.cli.exits import Exit
from openproto.cli.options import Users
from openproto.cli.output import count
from openproto.cli.passphrase import VARIABLE, ask_passphrase
from openproto.cli.reporting import Misuse, report_refusal
from openproto.portable.backup import back_up
from openproto.portable.encryption import Encrypting, decrypted
from openproto.portable.package import PackageError
from openproto.portable.restore import check
from openproto.portable.spool import complete_or_absent


@command(MOVING, takes=BACKEND)
async def backup(
    call: Call,
    file: Annotated[str, typer.Argument(metavar="FILE", help="The package to write, or with --verify to read.")],
    user: Users = None,
    vectors: Annotated[
        bool, typer.Option("--vectors", help="With the vectors, which restoring then need not make.")
    ] = False,
    encrypt: Annotated[
        bool, typer.Option("--encrypt", help=f"Under a passphrase: {VARIABLE}, or what is typed when asked.")
    ] = False,
    verify: Annotated[bool, typer.Option("--verify", help="Only read FILE, and say whether it is whole.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace FILE if it exists.")] = False,
) -> Exit:
    """Write everything that the backend holds into one file, while others go on writing.

    Memories, keys, what superseded what and when, and audit entries. FILE appears when it is complete and on the disk;
    `openproto restore` reads it back, into any backend that can keep what is in it.
    """
    if verify:
        return _verify(call, Path(file))
    path = _free(Path(file), force=force)
    passphrase = ask_passphrase(twice=True) if encrypt else None
    target = call.target()
    provider = target.make_provider()
    call.resume = "no file was written; the same command begins anew"
    with complete_or_absent(path) as written, call.out.progress("backing up") as bar:
        sink = Encrypting(written, passphrase) if passphrase is not None else written
        async with open_client(provider, target.client_options) as memory:
            manifest, end = await back_up(memory, provider, sink, users=user or [], vectors=vectors, report=bar)
        if isinstance(sink, Encrypting):
            sink.finish()
    if call.out.as_json:
        call.out.json({**end.model_dump(), "consistent": manifest.consistent, "lacks": manifest.lacks, "file": file})
        return Exit.OK
    call.out.line(f"{count(end.records, 'memory')} of {count(end.users, 'user')} in {file}")
    if not manifest.consistent:
        call.out.note("read page by page, not as of one moment: this provider has no snapshots")
    if manifest.lacks:
        call.out.note(f"not in it, for this provider does not give it: {', '.join(manifest.lacks)}")
    return Exit.OK


def _free(path: Path, *, force: bool) -> Path:
    if path.exists() and not force:
        raise Misuse(f"{path} exists", "--force replaces it")
    return path


def _verify(call: Call, path: Path) -> Exit:
    try:
        with path.open("rb") as file:
            reader = check(decrypted(file, ask_passphrase))
    except PackageError as error:
        return report_refusal(error, call.redact, as_json=call.out.as_json)
    manifest, end = reader.manifest, reader.counts
    if call.out.as_json:
        call.out.json({**end.model_dump(), **manifest.model_dump(by_alias=True), "whole": True})
        return Exit.OK
    held = [count(end.keys, "idempotency key"), count(end.audit, "audit entry")]
    call.out.line(
        f"{path} is whole: {count(end.records, 'memory')} of {count(end.users, 'user')}, {', '.join(held)}, "
        f"from {manifest.provider} at {manifest.made_at}"
    )
    return Exit.OK
