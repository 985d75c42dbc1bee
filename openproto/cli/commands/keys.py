"""`keys`: the API keys of `openproto serve`, in the file that a running server follows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from openproto.cli.call import Call
from openproto.cli.coerce import explain
from openproto.cli.command import CARE, OUTPUT, Group, app, command
from openproto.cli.commands.serve import require_server
from openproto.cli.options import Yes, moment_option
from openproto.cli.output import count
from openproto.cli.reporting import Misuse
from openproto.cli.show import stamp

if TYPE_CHECKING:
    from openproto.server.keys import ApiKey

group = typer.Typer(
    cls=Group, help="Make, list, rotate, and revoke the API keys of `openproto serve`.", no_args_is_help=True
)
app.add_typer(group, name="keys", rich_help_panel=CARE)

File = Annotated[
    Path,
    typer.Option(
        "--file",
        "-f",
        metavar="FILE",
        envvar="OPENPROTO_SERVER_KEYS_FILE",
        show_envvar=False,
        help="The file of `openproto serve --keys` (OPENPROTO_SERVER_KEYS_FILE).",
    ),
]
Name = Annotated[str, typer.Argument(metavar="NAME", help="What people call the key.")]


@command(CARE, takes=OUTPUT, group=group)
def add(
    call: Call,
    name: Name,
    users: Annotated[list[str], typer.Argument(metavar="USER", help="Whom it may act for; * for everyone.")],
    file: File,
    expires: Annotated[datetime | None, moment_option("--expires", "When it stops opening anything.")] = None,
    read_only: Annotated[bool, typer.Option("--read-only", help="It may not write.")] = False,
) -> None:
    """Make a key and print it: it is stored nowhere, and only its hash goes into the file.

    A running server takes it within a second. Piped: the key alone.
    """
    from openproto.server.keys import new_key

    with _edited(file) as keys:
        if any(key.name == name for key in keys):
            raise Misuse(f"{file} has a key named {name!r} already", "choose another name, or rotate that one")
        secret, entry = new_key(name, users, expires=expires, read_only=read_only)
        keys.append(entry)
    _show(call, secret, entry)


@command(CARE, name="list", takes=OUTPUT, group=group)
def list_(call: Call, file: File) -> None:
    """Show the keys, never what opens anything, and how they are used.

    A server counts uses every half minute. Piped fields: name, users, rights, expires, uses, last use.
    """
    require_server()
    from openproto.server.keys import read_keys
    from openproto.server.keys_file import read_usage

    with _told(file):
        keys, usage = read_keys(file), read_usage(file)
    if call.out.as_json:
        entries = [
            key.model_dump(mode="json", exclude={"sha256"})
            | ({"usage": usage[key.sha256].model_dump(mode="json")} if key.sha256 in usage else {})
            for key in keys
        ]
        call.out.json({"keys": entries})
        return
    rows = []
    for key in keys:
        used = usage.get(key.sha256)
        users = key.users if isinstance(key.users, str) else ", ".join(key.users)
        rights = "expired" if key.has_expired else "read" if key.read_only else "read, write"
        until = stamp(key.expires)[:16]
        rows.append(
            (key.name, users, rights, until, str(used.count) if used else "0", stamp(used.last)[:16] if used else "")
        )
    call.out.table(("name", "users", "may", "expires", "uses", "last"), rows)


@command(CARE, takes=OUTPUT, group=group)
def revoke(
    call: Call,
    name: Name,
    file: File,
    yes: Yes = False,
) -> None:
    """Take a key out of the file; a running server refuses it within a second."""
    call.confirm(f"revoke the key {name!r}? what uses it stops working", yes=yes)
    with _edited(file) as keys:
        _named(keys, name, file)
        kept = [key for key in keys if key.name != name]
        revoked = len(keys) - len(kept)
        keys[:] = kept
    if call.out.as_json:
        call.out.json({"revoked": revoked})
    else:
        call.out.line(f"revoked {count(revoked, 'key')}")


@command(CARE, takes=OUTPUT, group=group)
def rotate(
    call: Call,
    name: Name,
    file: File,
    expires: Annotated[
        datetime | None, moment_option("--expires", "When the new key stops; as before where left out.")
    ] = None,
    yes: Yes = False,
) -> None:
    """Put a new key in the place of one, with the same name and rights, and print it.

    The old one opens nothing after a second. To have both for a while, add a key and revoke the old one later.
    """
    from openproto.server.keys import new_key

    call.confirm(f"rotate the key {name!r}? what uses the old one stops working", yes=yes)
    with _edited(file) as keys:
        old = _named(keys, name, file)
        users: list[str] = [*old.users]  # "*" is a list of one, too
        secret, entry = new_key(name, users, expires=expires or old.expires, read_only=old.read_only)
        if entry.has_expired:
            raise Misuse(f"the key {name!r} has expired", "--expires says until when the new one is good")
        keys[:] = [entry if key is old else key for key in keys if key is old or key.name != name]
    _show(call, secret, entry)


@contextmanager
def _edited(file: Path) -> Iterator[list[ApiKey]]:
    require_server()
    from openproto.server.keys_file import edited_keys

    with _told(file), edited_keys(file) as keys:
        yield keys


@contextmanager
def _told(file: Path) -> Iterator[None]:
    """Make a Misuse of what is wrong with a new key or with the file."""
    from pydantic import ValidationError

    try:
        yield
    except ValidationError as error:
        raise Misuse(explain(error)) from None
    except ValueError as error:
        raise Misuse(str(error)) from None
    except OSError as error:
        raise Misuse(f"{file}: {error.strerror}") from None


def _named(keys: list[ApiKey], name: str, file: Path) -> ApiKey:
    for key in keys:
        if key.name == name:
            return key
    raise Misuse(f"{file} has no key named {name!r}", f"`openproto keys list --file {file}` shows those it has")


def _show(call: Call, secret: str, entry: ApiKey) -> None:
    if call.out.as_json:
        call.out.json({"key": secret, "entry": entry.model_dump(mode="json")})
    else:
        call.out.line(secret)
        if call.out.for_people:
            call.out.note("keep it now: it is shown this once")
