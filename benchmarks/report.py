"""What a run leaves: a JSON file for programs and a table for people."""

from __future__ import annotations

import json
import os
import platform
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.harness import Figure
from openproto import __version__

Results = Mapping[str, Sequence[Figure]]


def write_json(file: Path, results: Results, *, quick: bool) -> None:
    """Write every figure, with where and when it was measured."""
    report = {
        "openproto": __version__,
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "quick": quick,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors",
        "figures": [{"benchmark": name, **figure.to_json()} for name, found in results.items() for figure in found],
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def quoted(text: str, report: Mapping[str, Any]) -> str:
    """Return a document whose tables between marks hold the figures of `report`: all of them, or of some benchmarks.

    The mark `<!-- figures: peers, driver -->` names benchmarks, `<!-- figures -->` none; both end at
    `<!-- end of figures -->`.
    """

    def table(mark: re.Match[str]) -> str:
        names = mark["names"].split(", ") if mark["names"] else None
        chosen = [figure for figure in report["figures"] if names is None or figure["benchmark"] in names]
        where = f"Measured on {report['measured_at'][:10]} on {report['machine']}, Python {report['python']}"
        rows = [
            f"| {one['name']} | {_number(one)} | {_lowest_to_highest(one)} | {one['bound']} | {_met(one)} |"
            for one in chosen
        ]
        head = ["| figure | median | of three runs | bound | met |", "|---|---|---|---|---|"]
        return "\n".join([mark["begin"], f"{where}:", "", *head, *rows, mark["end"]])

    return _QUOTED.sub(table, text)


_QUOTED = re.compile(
    r"(?P<begin><!-- figures(?:: (?P<names>[^>]+?))? -->)\n.*?(?P<end><!-- end of figures -->)", re.DOTALL
)


def _number(figure: Mapping[str, Any]) -> str:
    return "" if figure["value"] is None else f"{figure['value']:.3g} {figure['unit']}".strip()


def _lowest_to_highest(figure: Mapping[str, Any]) -> str:
    runs = [value for value in figure["detail"].get("runs", ()) if value is not None]
    return f"{min(runs):.3g}-{max(runs):.3g}" if runs and min(runs) != max(runs) else ""


def _met(figure: Mapping[str, Any]) -> str:
    if figure["ok"] is None:
        return "not run" if figure["value"] is None else ""
    return "yes" if figure["ok"] else "**no**"


def print_table(results: Results) -> None:
    """Print a line for each figure."""
    table = Table(title="openproto, measured side by side")
    for title in ("figure", "measured", "bound", "met"):
        table.add_column(title, justify="left" if title == "figure" else "right")
    for found in results.values():
        for figure in found:
            table.add_row(figure.name, _measured(figure), figure.bound, _verdict(figure))
        table.add_section()
    # Without a terminal, whose width would count, a line of the table is never broken.
    console = Console()
    Console(width=None if console.is_terminal else 140).print(table)


def _measured(figure: Figure) -> str:
    if figure.value is None:
        return "; ".join(f"{how.replace('_', ' ')}: {why}" for how, why in figure.detail.items())
    # Counts are whole; everything else has three digits that mean something.
    value = f"{figure.value:.3g}" if isinstance(figure.value, float) else str(figure.value)
    return f"{value} {figure.unit}".strip()


def _verdict(figure: Figure) -> str:
    if figure.ok is None:
        return "not run" if figure.value is None else "-"
    return "[green]yes[/green]" if figure.ok else "[bold red]NO[/bold red]"
