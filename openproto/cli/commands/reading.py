"""The verbs that read: `search`, `context`, `get`, `list`, `audit`, `capabilities`."""

from __future__ import annotations

from typing import Annotated

import typer

from openproto.cli import show
from openproto.cli.call import Call
from openproto.cli.command import CARE, MEMORIES, command
from openproto.cli.options import AsOf, Id, Query, Scope, Since, Tag, Until, limit_option
from openproto.cli.output import count
from openproto.requests import MAX_AUDIT_LIMIT, MAX_LIST_LIMIT, MAX_SEARCH_LIMIT


@command(MEMORIES)
async def search(
    call: Call,
    query: Query,
    scope: Scope = None,
    tag: Tag = None,
    as_of: AsOf = None,
    limit: Annotated[int, limit_option(MAX_SEARCH_LIMIT)] = 10,
    min_score: Annotated[
        float | None, typer.Option(metavar="SCORE", help="Leave out what scores less, 0 to 1.")
    ] = None,
) -> None:
    """Find the memories that answer a query, best first.

    Piped fields: id, score, scope, tags, content.
    """
    user = call.user
    async with call.client() as memory:
        results = await memory.search(query, user, scope=scope, tag=tag, as_of=as_of, limit=limit, min_score=min_score)
    show.show_results(call.out, results)


@command(MEMORIES)
async def context(
    call: Call,
    query: Query,
    scope: Scope = None,
    tag: Tag = None,
    as_of: AsOf = None,
    token_budget: Annotated[
        int, typer.Option("--token-budget", "--budget", "-b", metavar="N", help="At most this many tokens.")
    ] = 500,
) -> None:
    """Print the best memories as text for a prompt, within a token budget.

    The text alone goes to stdout; each line ends with the id of its memory.
    """
    user = call.user
    async with call.client() as memory:
        block = await memory.context(query, user, scope=scope, tag=tag, as_of=as_of, token_budget=token_budget)
    if call.out.as_json:
        call.out.json(block.to_wire())
        return
    if block.text:
        call.out.line(block.text)
    if call.out.for_people:
        call.out.note(f"{block.token_count} of {token_budget} tokens, {count(len(block.citations), 'memory')}")


@command(MEMORIES)
async def get(call: Call, id: Id) -> None:
    """Show one memory, every field of it.

    Piped fields: name, value.
    """
    async with call.client() as memory:
        record = await memory.get(id, user_id=call.common.user)
    show.show_record(call.out, record)


@command(MEMORIES)
async def list(
    call: Call,
    scope: Scope = None,
    tag: Tag = None,
    since: Since = None,
    until: Until = None,
    as_of: AsOf = None,
    limit: Annotated[int, limit_option(MAX_LIST_LIMIT)] = 50,
    cursor: Annotated[
        str | None, typer.Option(metavar="CURSOR", help="Go on where the page that printed this ended.")
    ] = None,
) -> None:
    """List memories, newest first, a page at a time.

    Piped fields: id, when it was made, scope, tags, content. `openproto export` writes them all.
    """
    user = call.user
    async with call.client() as memory:
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


@command(CARE)
async def capabilities(call: Call) -> None:
    """Show what the provider can do.

    Piped fields: name, value.
    """
    async with call.client() as memory:
        declared = await memory.capabilities()
    show.show_capabilities(call.out, declared)
