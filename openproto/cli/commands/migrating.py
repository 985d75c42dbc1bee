"""`migrate`: a whole store, or some users of it, from one provider to another."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from openproto import AsyncMemory, ScopeDeniedError, UnsupportedCapabilityError
from openproto.cli.call import Call, Target
from openproto.cli.coerce import coerce, pairs
from openproto.cli.command import MOVING, OUTPUT, command
from openproto.cli.exits import Exit
from openproto.cli.output import count
from openproto.cli.reporting import Misuse
from openproto.portable.bringing import Result
from openproto.portable.journal import Journal, journal_path, open_journal, read_header
from openproto.portable.matching import Matching
from openproto.portable.migrate import Migration, undo
from openproto.portable.spool import open_private
from openproto.portable.surveying import Survey, survey, users_of
from openproto.registry import CLIENT_OPTIONS, provider_class, provider_options

_COMMON = ("embedder", "timeout", "retries")
"""Which of the general variables, such as OPENPROTO_EMBEDDER, hold for both sides."""

_HIDDEN = "***"
_SHOWN = 20


def _option(flag: str, help: str) -> Any:
    return typer.Option(flag, metavar="NAME=VALUE", help=help)


@command(MOVING, takes=OUTPUT)
async def migrate(
    call: Call,
    source: Annotated[
        str | None, typer.Option("--from", metavar="PROVIDER", help="Where the memories are (OPENPROTO_FROM_PROVIDER).")
    ] = None,
    source_option: Annotated[
        list[str] | None,
        _option("--from-option", "An option of that provider or its client; repeatable (OPENPROTO_FROM_NAME)."),
    ] = None,
    target: Annotated[
        str | None, typer.Option("--to", metavar="PROVIDER", help="Where they are to go (OPENPROTO_TO_PROVIDER).")
    ] = None,
    target_option: Annotated[
        list[str] | None,
        _option("--to-option", "An option of that provider or its client; repeatable (OPENPROTO_TO_NAME)."),
    ] = None,
    user: Annotated[
        list[str] | None, typer.Option("--user", "-u", metavar="ID", help="Only this user's memories; repeatable.")
    ] = None,
    users_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Only the users in this file, an id on each line.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what there is and what would be lost.")] = False,
    lossy: Annotated[
        bool, typer.Option("--lossy", help="Go on although the target cannot keep everything; the report tells what.")
    ] = False,
    report: Annotated[
        Path, typer.Option(metavar="FILE", help="Where to write what was done; a journal is kept next to it.")
    ] = Path("openproto-migration.json"),
    undo_: Annotated[
        Path | None,
        typer.Option("--undo", metavar="REPORT", help="Remove what that migration brought and nobody has changed."),
    ] = None,
) -> Exit:
    """Bring memories from one provider to another, and compare both sides field by field.

    Nothing is written before all has been read once and the target can keep it. May be stopped at any time: the same
    command goes on, brings what is new, and writes nothing where nothing is.
    """
    if undo_ is not None:
        return await _undo(call, undo_, _given("to", target_option))
    there = _side(call, "to", target, target_option)
    here = _side(call, "from", source, source_option)
    if here.shown == there.shown:
        raise Misuse("--from and --to are the same store", "name the one to bring the memories to with --to-option")
    async with call.client(here.target) as from_, call.client(there.target) as to:
        users = _named(user, users_file) or await _users(from_, here.target.name)
        if not users:
            call.out.warn(f"nobody has memories in {_place(here.shown)}: is it the store that you mean?")
        with call.out.progress("reading") as bar:
            plan = await survey(from_, to, users, bar)
        told: dict[str, Any] = {"from": here.shown, "to": there.shown, "survey": _survey(plan)}
        lost = bool(plan.cannot_keep) and not lossy
        if dry_run or lost:
            _say(call, told)
            if lost and not dry_run:
                call.out.note("nothing was written; --lossy goes on all the same")
            return Exit.REFUSED if lost else Exit.OK
        header = {"from": here.shown, "to": there.shown, "unkept": plan.unkept}
        call.resume = "what was brought is there, and the same command goes on"
        with _journal(report, header) as journal, call.out.progress("bringing") as bar:
            migration = Migration(from_, to, plan, journal, Matching(here.target.name, plan.unkept), anew=lossy)
            result = await migration.run(bar)
    told |= _result(result)
    _write(report, told)
    _say(call, told)
    call.out.note(f"report: {report}; `openproto migrate --undo {report}` removes what was brought")
    return Exit.FAILED if result.faults else Exit.OK


class _Side:
    """A provider and its options as they may be shown and kept: without secrets."""

    def __init__(self, call: Call, name: str, options: Mapping[str, str]) -> None:
        cls = provider_class(name)
        call.hidden += [f"{option}={value}" for option, value in options.items()]
        common = {name: os.environ.get(f"OPENPROTO_{name.upper()}", "") for name in _COMMON}
        takes = {*provider_options(cls), *CLIENT_OPTIONS}
        common = {name: value for name, value in common.items() if value and name in takes}
        found = coerce({**common, **options}, cls.__init__, AsyncMemory.__init__)
        client = {option: found.pop(option) for option in CLIENT_OPTIONS if option in found}
        self.target = Target(name, found, client)
        self.shown: dict[str, Any] = {
            "provider": name,
            "options": {
                option: str(Path(value).expanduser().absolute()) if option == "path" else call.redact(value)
                for option, value in sorted(options.items())
                if option in found
            },
        }


def _side(call: Call, which: str, name: str | None, options: list[str] | None) -> _Side:
    given = _given(which, options)
    named = given.pop("provider", None)
    if (name or named) is None:
        raise Misuse(f"--{which} says which provider, and is missing", "`openproto providers` lists them")
    return _Side(call, str(name or named), given)


def _given(which: str, options: list[str] | None) -> dict[str, str]:
    """Return the options of one side by name: the environment's, then those that were typed."""
    prefix = f"OPENPROTO_{which.upper()}_"
    named = {key.removeprefix(prefix).lower(): value for key, value in os.environ.items() if key.startswith(prefix)}
    return {**named, **pairs(options or [], f"--{which}-option")}


def _named(users: list[str] | None, file: Path | None) -> list[str]:
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines() if file is not None else []
    except UnicodeDecodeError:
        raise Misuse(f"{file} is not a text in UTF-8", "write an id on each line") from None
    named = [*(users or []), *(line.strip() for line in lines if line.strip())]
    if file is not None and not named:  # which must not come to mean everybody
        raise Misuse(f"{file} names no user", "write an id on each line")
    return list(dict.fromkeys(named))


async def _users(memory: AsyncMemory, provider: str) -> list[str]:
    try:
        return await users_of(memory)
    except (UnsupportedCapabilityError, ScopeDeniedError) as error:
        raise Misuse(
            f"{provider} does not list its users: {error.message}",
            "name them with --user ID, which may be repeated, or --users-file FILE",
        ) from error


@contextmanager
def _journal(report: Path, header: Mapping[str, Any]) -> Iterator[Journal]:
    file, journal = open_journal(report, header)
    with file:
        yield journal


async def _undo(call: Call, report: Path, given: Mapping[str, str]) -> Exit:
    path = journal_path(report)
    with path.open("rb") as file:
        header = read_header(file.readline())
    header.pop("token")
    kept = header["to"]["options"]
    options = {**kept, **{name: value for name, value in given.items() if name != "provider"}}
    missing = [name for name, value in options.items() if _HIDDEN in value]
    if missing:
        raise Misuse(
            f"the report does not keep secrets: {', '.join(missing)}", f"--to-option {missing[0]}=... gives it"
        )
    side = _Side(call, header["to"]["provider"], options)
    if any(side.shown["options"].get(name) != value for name, value in kept.items()):
        raise Misuse("this is not where the migration brought the memories to", f"it was {json.dumps(header['to'])}")
    call.resume = "what was removed is removed, and the same command goes on"
    async with call.client(side.target) as memory:
        with _journal(report, header) as journal, call.out.progress("removing") as bar:
            undone = await undo(memory, journal, Matching(header["from"]["provider"], header["unkept"]), bar)
    path.unlink()
    if call.out.as_json:
        call.out.json(asdict(undone))
    else:
        call.out.line(f"{count(undone.removed, 'memory')} removed")
        for each in undone.changed:
            call.out.warn(f"{each['id']} of {each['user_id']} was changed since it was brought, and is left")
    return Exit.FAILED if undone.changed else Exit.OK


def _survey(plan: Survey) -> dict[str, Any]:
    return {
        "users": len(plan.users),
        "records": plan.records,
        "by_user": {user: {scope or "": n for scope, n in scopes.items()} for user, scopes in plan.users.items()},
        "cannot_keep": dict(plan.cannot_keep),
    }


def _result(result: Result) -> dict[str, Any]:
    return {
        "brought": result.brought,
        "renewed": result.renewed,
        "equal": result.equal,
        "faults": dict(result.faults),
        "listed": result.listed,
        "counts": result.counts,
        "ids": result.ids,
        "searches": dict(result.searches),
    }


def _write(path: Path, report: Mapping[str, Any]) -> None:
    finished = path.with_name(path.name + ".tmp")
    with open_private(finished, empty=True) as file:
        file.write(json.dumps(report, indent=1, ensure_ascii=False).encode())
    finished.replace(path)


def _say(call: Call, report: Mapping[str, Any]) -> None:
    """Print the report: as JSON, or as a page of text."""
    if call.out.as_json:
        call.out.json(report)
        return
    line = call.out.line
    plan = report["survey"]
    what = f"{count(plan['records'], 'memory')} of {count(plan['users'], 'user')}"
    line(f"{what}: {_place(report['from'])} to {_place(report['to'])}")
    for name, number in plan["cannot_keep"].items():
        line(f"cannot be kept there: {name} of {count(number, 'memory')}")
    if "brought" not in report:
        return
    line(f"brought {report['brought']}" + (f", brought again {report['renewed']}" if report["renewed"] else ""))
    line(f"equal in every field: {report['equal']}" + "".join(f", {kind}: {n}" for kind, n in report["faults"].items()))
    changed = sum(len(ids) for ids in report["ids"].values())
    if changed:
        line(f"{count(changed, 'memory')} got another id; the report lists them")
    searches = report["searches"]
    if searches:
        line(
            f"searches tried on both: {searches['asked']}, with the same best hit {searches['same best hit']}, "
            f"with the same hits {searches['same hits']}"
        )
    for each in report["listed"][:_SHOWN]:
        why = each.get("error") or ", ".join(each.get("fields", ()))
        line(f"{each['what']}: {each['id']} of {each['user_id']}" + (f" ({why})" if why else ""))


def _place(side: Mapping[str, Any]) -> str:
    where = side["options"].get("path") or side["options"].get("url") or ""
    return f"{side['provider']} {where}".strip()
