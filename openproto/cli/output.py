"""Where results go: tables for people, tab-separated lines for a pipe, JSON for programs.

On a terminal a result is laid out to be read and may wrap. Into a pipe or a file goes one line a record, fields
separated by tabs, no heading, nothing shortened; tabs, line breaks, and backslashes in a field are escaped. With
`--json` it is the protocol's own JSON. In the first two, control characters of stored text show as escapes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from openproto.cli.clean import clean, clean_field, clean_line
from openproto.portable.terminal import clean_json

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text


def count(number: int, noun: str) -> str:
    """Return `number` and its noun: `1 memory`, `2 memories`."""
    if number != 1:
        noun = noun[:-1] + "ies" if noun.endswith("y") and not noun.endswith("ey") else noun + "s"
    return f"{number} {noun}"


def _longest_word(texts: Iterable[str]) -> int:
    from rich.cells import cell_len

    return max(cell_len(word) for text in texts for word in ("", *text.split()))


class Progress(Protocol):
    """How far a long command is."""

    def __call__(self, done: int, total: int | None = None) -> None:
        """Show `done` of `total`."""


class Output:
    """Prints one command's results."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self.for_people = not as_json and sys.stdout.isatty()

    def json(self, value: Any) -> None:
        """Print `value` as JSON: indented on a terminal, one line elsewhere."""
        escaped = (sys.stdout.encoding or "").lower().replace("-", "") != "utf8"
        indent = 2 if sys.stdout.isatty() else None
        self._write(clean_json(json.dumps(value, ensure_ascii=escaped, indent=indent)) + "\n")

    def line(self, text: str, style: str = "") -> None:
        """Print a text of ours; `style` counts on a terminal only."""
        if self.for_people:
            self.console().print(self.text(text, style), soft_wrap=True)
        else:
            self._write(clean(text) + "\n")

    def table(self, headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Print `rows`: under their headings on a terminal, as tab-separated lines elsewhere."""
        if not self.for_people:
            for row in rows:
                self._write("\t".join(clean_field(cell) for cell in row) + "\n")
            return
        cells = [[clean_line(cell) for cell in row] for row in rows]
        widths = [_longest_word(column) for column in zip(headings, *cells, strict=True)]
        if sum(widths) + len(widths) > self.console().width:
            for row in cells:  # no room for columns without breaking a word: one under the other
                self.fields((heading, cell) for heading, cell in zip(headings, row, strict=True) if cell)
                self.console().print()
            return
        from rich.table import Table

        table = Table(box=None, pad_edge=False, header_style="bold")
        for heading, width in zip(headings, widths, strict=True):
            table.add_column(heading, min_width=width, overflow="fold")
        for row in cells:
            table.add_row(*map(self.text, row))
        self.console().print(table)

    def hanging(self, first: str, text: str, style: str = "") -> None:
        """Print a line; on a terminal what does not fit goes on beneath the beginning of `text`."""
        if not self.for_people:
            self.line((first + text).rstrip(), style)
            return
        from rich.table import Table

        grid = Table.grid()
        grid.add_column(width=len(first))
        grid.add_column(overflow="fold")
        grid.add_row(self.text(first, style), self.text(text, style))
        self.console().print(grid)

    def fields(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Print names and values, a pair a line; on a terminal the values keep their own line breaks."""
        if not self.for_people:
            self.table((), pairs)
            return
        from rich.table import Table

        grid = Table.grid(padding=(0, 2))
        for name, value in pairs:
            grid.add_row(self.text(name, "bold"), self.text(value))
        self.console().print(grid)

    def note(self, text: str) -> None:
        """Print a remark on stderr, unless JSON was asked for."""
        if not self.as_json:
            self.warn(text)

    def warn(self, text: str) -> None:
        """Say something on stderr that a program must not miss either."""
        sys.stderr.write(clean(text) + "\n")

    @contextmanager
    def progress(self, what: str) -> Iterator[Progress]:
        """Show a bar on stderr while the block runs, if that is a terminal."""
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        shown = not self.as_json and sys.stderr.isatty()
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Bar(
            *columns, console=Console(stderr=True), transient=True, redirect_stdout=False, disable=not shown
        ) as bar:
            task = bar.add_task(what, total=None)
            yield lambda done, total=None: bar.update(task, completed=done, total=total)

    def console(self) -> Console:
        """Return the terminal; nothing printed to it is read as markup."""
        from rich.console import Console

        return Console(markup=False, highlight=False, emoji=False)

    def text(self, text: str, style: str = "") -> Text:
        """Return stored or other text for the terminal, harmless, in `style`."""
        from rich.text import Text

        return Text(clean(text), style)

    def _write(self, text: str) -> None:
        sys.stdout.write(text)
