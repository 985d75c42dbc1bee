"""What a run leaves: a JSON file for programs and a table for people."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

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
