"""`bench`: the figures of a memory, of any provider, on your own conversations or the shipped set."""

from __future__ import annotations

import json
import secrets
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles
from typing import Annotated, Any

import typer

from openproto import AsyncMemory
from openproto.cli.benchmark.asking import ask
from openproto.cli.benchmark.control import MIN_SCORE, bytes_each, control
from openproto.cli.benchmark.conversations import Conversation, read_conversations
from openproto.cli.benchmark.figures import table
from openproto.cli.call import Call
from openproto.cli.command import BACKEND, CARE, command
from openproto.cli.reporting import Misuse


@dataclass
class _Report:
    """What is printed: each ranking's figures, and of each memory those of control and of cost."""

    rankings: Mapping[str, Mapping[str, Sequence[float]]]
    control: dict[str, dict[str, Any]]


@command(CARE, takes=BACKEND)
async def bench(
    call: Call,
    conversations: Annotated[
        Path | None,
        typer.Argument(metavar="PATH", help="A conversation in LoCoMo's format or JSON Lines, or a folder of them."),
    ] = None,
    rows: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where to write a row for each question and ranking.")
    ] = None,
    beside: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="A provider to measure in the same run, as the environment has it; repeatable."
        ),
    ] = None,
    verify: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Compute the table again from such rows, and ask nothing.")
    ] = None,
) -> None:
    """Measure how well a memory finds what answers a question, and whether it keeps to its rules.

    Everything is stored under invented users and removed again; what keeps its memories in a folder gets a temporary
    one with --beside. Without PATH only the shipped set is asked.
    """
    if verify is not None:
        try:
            written = [json.loads(line) for line in verify.read_text(encoding="utf-8").splitlines()]
            _print(call, _Report(table(written), {}))
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise Misuse(f"{verify} holds no rows of `openproto bench`", "write them with --rows FILE") from error
        return
    try:
        asked_about = read_conversations(conversations) if conversations is not None else []
    except (OSError, ValueError) as error:
        raise Misuse(str(error)) from error
    written = []
    figures: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        targets = {"memory": call.target()}
        targets |= {name: call.target(provider=name, path=f"{folder}/{name}") for name in beside or ()}
        for name, target in targets.items():
            async with call.client(target) as memory:
                made, figures[name] = await _measured(call, memory, name, asked_about)
                written += made
    if rows is not None:
        rows.write_text("".join(json.dumps(row) + "\n" for row in written), encoding="utf-8")
    _print(call, _Report(table(written), figures))


async def _measured(
    call: Call, memory: AsyncMemory, name: str, asked_about: Sequence[Conversation]
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return a row for each question and ranking, and the figures of control and of cost."""
    prefix = f"openproto-bench-{secrets.token_hex(4)}"
    kept = await control(memory, prefix)
    taken = await bytes_each(memory, prefix)
    with call.out.progress("asking") as bar:
        asked = await ask(memory, asked_about, prefix, bar, name)
    cuts = quantiles(sorted([*kept.seconds, *asked.seconds]), n=20)
    return asked.rows, {
        "STALE": kept.stale,
        "LEAK": kept.leak,
        "GHOST": kept.ghost,
        "ECHO": kept.echo,
        f"INVENTED (min_score {MIN_SCORE})": kept.invented,
        "write to searchable, ms": round(kept.lag * 1e3, 1),
        "search p50, ms": round(cuts[9] * 1e3, 2),
        "search p95, ms": round(cuts[18] * 1e3, 2),
        "bytes a memory": taken,
    }


def _print(call: Call, report: _Report) -> None:
    if call.out.as_json:
        rankings = {
            name: {mark: list(figure) for mark, figure in marks.items()} for name, marks in report.rankings.items()
        }
        call.out.json({"rankings": rankings, "control": report.control.pop("memory", {}), "beside": report.control})
        return
    names = list(next(iter(report.rankings.values()), {}))
    if names:
        lines = [
            [name, *(f"{mean:.3f} [{low:.3f}, {high:.3f}]" for mean, low, high in marks.values())]
            for name, marks in report.rankings.items()
        ]
        call.out.table(["ranking", *names], lines)
    if report.control:
        columns = report.control.values()
        shown = [[name, *(_cell(column[name]) for column in columns)] for name in report.control["memory"]]
        call.out.table(["figure", *report.control], shown)


def _cell(value: object) -> str:
    return "not known" if value is None else str(value)
