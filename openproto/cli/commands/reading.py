"""What reads: `search`, `context`, `get`, `list`, `audit`, `scopes`, `users`, `capabilities`."""

from __future__ import annotations

from typing import Annotated

import typer

from openproto import MemoryPage
from openproto.cli import show
from openproto.cli.call import Call
from openproto.cli.command import BACKEND, CARE, MEMORIES, command
from openproto.cli.options import AsOf, Query, Scope, Since, Tags, Until, limit_option
from openproto.cli.output import count
from openproto.cli.reporting import Misuse
from openproto.requests import MAX_AUDIT_LIMIT, MAX_LIST_LIMIT, MAX_SEARCH_LIMIT


@command(MEMORIES)
async def search(
    call: Call,
    query: Query,
    scope: Scope = None,
    tag: Tags = None,
    as_of: AsOf = None,
    limit: Annotated[int, limit_option(MAX_SEARCH_LIMIT)] = 10,
    min_score: Annotated[
        float | None, typer.Option(metavar="SCORE", help="Leave out what scores less, 0 to 1.")
    ] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Show what each score is made of.")] = False,
) -> None:
    """Find the memories that answer a query, best first.

    Piped fields: id, score, scope, tags, content; with --explain, what adds how much to the score.
    """
    user = call.user
    async with call.client() as memory:
        results = await memory.search(
            query, user, scope=scope, tag=tag, as_of=as_of, limit=limit, min_score=min_score, explain=explain
        )
    show.show_results(call.out, results)


@command(MEMORIES)
async def context(
    call: Call,
    query: Query,
    scope: Scope = None,
    tag: Tags = None,
    as_of: AsOf = None,
    token_budget: Annotated[
        int, typer.Option("--token-budget", "--budget", "-b", metavar="N", help="At most this many tokens.")
    ] = 500,
    relevant_only: Annotated[
        bool, typer.Option("--relevant-only", help="Do not fill what is left of the budget with the newest.")
    ] = False,
) -> None:
    """Print the best memories as text for a prompt, within a token budget.

    The text alone goes to stdout; each line ends with the id of its memory.
    """
    user = call.user
    async with call.client() as memory:
        block = await memory.context(
            query,
            user,
            scope=scope,
            tag=tag,
            as_of=as_of,
            token_budget=token_budget,
            relevant_only=relevant_only,
        )
    if call.out.as_json:
        call.out.json(block.to_wire())
        return
    if block.text:
        call.out.line(block.text)
    if call.out.for_people:
        call.out.note(f"{block.token_count} of {token_budget} tokens, {count(len(block.citations), 'memory')}")


@command(MEMORIES)
async def get(
    call: Call,
    id: Annotated[str | None, typer.Argument(metavar="ID", help="The memory's id; or see --key.")] = None,
    key: Annotated[str | None, typer.Option(metavar="KEY", help="The key that --user gave it.")] = None,
) -> None:
    """Show one memory, every field of it.

    Piped fields: name, value.
    """
    if (id is None) == (key is None):
        raise Misuse("get wants either an ID, or --key")
    user = call.common.user if key is None else call.user
    async with call.client() as memory:
        record = await memory.get(id, user_id=user, key=key)
    show.show_record(call.out, record)


@command(MEMORIES)
async def list(
    call: Call,
    scope: Scope = None,
    tag: Tags = None,
    since: Since = None,
    until: Until = None,
    as_of: AsOf = None,
    limit: Annotated[int, limit_option(MAX_LIST_LIMIT)] = 50,
    cursor: Annotated[
        str | None, typer.Option(metavar="CURSOR", help="Go on where the page that printed this ended.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every page, in one listing.")] = False,
) -> None:
    """List memories, newest first, a page at a time.

    Piped fields: id, when it was made, scope, tags, content.
    """
    user = call.user
    if everything and cursor is not None:
        raise Misuse("--all lists every page, and --cursor one")
    async with call.client() as memory:
        if everything:
            records = memory.iter(
                user, scope=scope, tag=tag, since=since, until=until, as_of=as_of, page_size=MAX_LIST_LIMIT
            )
            show.show_page(call.out, MemoryPage(items=[record async for record in records]))
            return
        page = await memory.list(
            user, scope=scope, tag=tag, since=since, until=until, as_of=as_of, limit=limit, cursor=cursor
        )
    show.show_page(call.out, page)


@command(MEMORIES)
async def audit(
    call: Call,
    app: Annotated[str | None, typer.Option(metavar="APP", help="Only what this app did.")] = None,
    memory_id: Annotated[
        str | None, typer.Option("--memory", "-m", metavar="ID", help="Only what happened to this memory.")
    ] = None,
    since: Since = None,
    limit: Annotated[int, limit_option(MAX_AUDIT_LIMIT)] = 100,
) -> None:
    """Show who read and wrote a user's memories, newest first.

    Piped fields: when, action, memory id, scope, app.
    """
    user = call.user
    async with call.client() as memory:
        entries = await memory.audit(user, app=app, memory_id=memory_id, since=since, limit=limit)
    show.show_audit(call.out, entries)


@command(MEMORIES)
async def scopes(
    call: Call,
    prefix: Annotated[str | None, typer.Option(metavar="PATH", help="Only this scope and those beneath it.")] = None,
    depth: Annotated[
        int | None, typer.Option(metavar="N", help="Count deeper scopes towards their ancestor of N segments.")
    ] = None,
) -> None:
    """Show the scopes that a user's memories are in, and how many are in each.

    Piped fields: scope, memories.
    """
    user = call.user
    async with call.client() as memory:
        counts = await memory.scopes(user, prefix=prefix, depth=depth)
    if call.out.as_json:
        call.out.json({"scopes": [each.to_wire() for each in counts]})
    else:
        call.out.table(("scope", "memories"), [(each.scope, str(each.records)) for each in counts])


@command(CARE, takes=BACKEND)
async def users(
    call: Call,
    limit: Annotated[int, limit_option(MAX_LIST_LIMIT)] = 100,
    cursor: Annotated[
        str | None, typer.Option(metavar="CURSOR", help="Go on where the page that printed this ended.")
    ] = None,
) -> None:
    """List the ids of the users that have memories, a page at a time.

    Piped: a user a line.
    """
    async with call.client() as memory:
        page = await memory.users(limit=limit, cursor=cursor)
    if call.out.as_json:
        call.out.json(page.to_wire())
        return
    call.out.table(("user",), [(user,) for user in page.items])
    if page.next_cursor is not None:
        call.out.note(f"there are more: --cursor {page.next_cursor}")


@command(CARE, takes=BACKEND)
async def capabilities(call: Call) -> None:
    """Show what the provider can do.

    Piped fields: name, value.
    """
    async with call.client() as memory:
        declared = await memory.capabilities()
    show.show_capabilities(call.out, declared)
