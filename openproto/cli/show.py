"""How each of the protocol's results looks to people and on a tab-separated line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import datetime

from openproto import AuditEntry, Capabilities, MemoryPage, MemoryRecord, SearchResult
from openproto.cli.clean import clean_line
from openproto.cli.output import Output

_PREVIEW = 240  # characters of a memory in a list on a terminal; `get` shows all


def stamp(moment: datetime | None) -> str:
    """Return a moment as it stands on the wire."""
    return moment.isoformat().replace("+00:00", "Z") if moment else ""


def show_record(out: Output, record: MemoryRecord) -> None:
    """Print every field of one record."""
    if out.as_json:
        out.json(record.to_wire())
    else:
        out.fields((name, _spell(value)) for name, value in record.to_wire().items())


def show_written(out: Output, done: str, record: MemoryRecord) -> None:
    """Print what was done and the id of the record; all of it as JSON."""
    if out.as_json:
        out.json(record.to_wire())
    else:
        out.line(f"{done} {record.id}" if out.for_people else record.id)


def show_page(out: Output, page: MemoryPage) -> None:
    """Print a page of records, and how to get the next one."""
    if out.as_json:
        out.json(page.to_wire())
        return
    if out.for_people:
        _show_memories(
            out, "made", [(stamp(record.created_at)[:16].replace("T", " "), record, "") for record in page.items]
        )
    else:
        out.table((), (_line(record, stamp(record.created_at)) for record in page.items))
    if not page.items:
        out.note("no memories")
    if page.next_cursor is not None:
        out.note(f"there are more: --cursor {page.next_cursor}")


def show_results(out: Output, results: Sequence[SearchResult]) -> None:
    """Print what a search found, best first."""
    if out.as_json:
        out.json({"results": [result.to_wire() for result in results]})
        return
    if out.for_people:
        rows = [(f"{result.score:.2f}", result.memory, _spell_parts(result, " + ", 2)) for result in results]
        _show_memories(out, "score", rows)
    else:
        lines = ((_line(result.memory, f"{result.score:.4f}"), _spell_parts(result, ",", 4)) for result in results)
        out.table((), ((*line, parts) if parts else line for line, parts in lines))
    if not results:
        out.note("nothing found")


def show_audit(out: Output, entries: Sequence[AuditEntry]) -> None:
    """Print who did what, newest first."""
    if out.as_json:
        out.json({"entries": [entry.to_wire() for entry in entries]})
        return
    when = 19 if out.for_people else None  # seconds are enough to read
    rows = [
        (stamp(entry.timestamp)[:when], entry.action, entry.memory_id or "", entry.scope or "", entry.app or "")
        for entry in entries
    ]
    out.table(("when", "did", "memory", "scope", "app"), rows)
    if not rows:
        out.note("nothing recorded")


def show_capabilities(out: Output, capabilities: Capabilities) -> None:
    """Print what a provider declares."""
    if out.as_json:
        out.json(capabilities.to_wire())
        return
    support = capabilities.x_openproto.support
    rows = [("provider", capabilities.provider), ("protocol", capabilities.omp_version)]
    rows += [(verb, support.get(verb, "yes")) for verb in capabilities.verbs]
    rows += [(name, _spell(value)) for name, value in capabilities.features.to_wire().items()]
    rows += [(name, _spell(value)) for name, value in capabilities.limits.to_wire().items()]
    out.fields([*rows, ("cancellation", capabilities.x_openproto.cancellation)])


def _show_memories(out: Output, heading: str, rows: Iterable[tuple[str, MemoryRecord, str]]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(heading, no_wrap=True)
    table.add_column("memory")
    for first, record, more in rows:
        content = clean_line(record.content)
        text = out.text(content if len(content) <= _PREVIEW else content[: _PREVIEW - 1] + "…")
        about = [record.id, record.scope or "", *(f"#{tag}" for tag in record.tags)]
        if record.superseded_by:
            about.append(f"superseded by {record.superseded_by}")
        text.append("\n" + clean_line(" · ".join(part for part in (*about, more) if part)), "dim")
        table.add_row(first, text)
    if table.row_count:
        out.console().print(table)


def _line(record: MemoryRecord, first: str) -> tuple[str, ...]:
    return (record.id, first, record.scope or "", ",".join(record.tags), record.content)


def _spell_parts(result: SearchResult, between: str, digits: int) -> str:
    return between.join(f"{name} {value:.{digits}f}" for name, value in (result.parts or {}).items())


def _spell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
