"""What the verbs show a person: a console made late, sizes and seconds in words, and progress that only a terminal sees.

rich is imported inside the functions, so that a verb which prints JSON never pays for it. Colour follows rich's rules: none
where `NO_COLOR` is set or the stream is no terminal.
"""

import math
import os
import re
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

MAX_ROWS = 12  # of a table; a person looks at the top, a program takes --json
UNCUT = 10_000  # columns of a stream that is no terminal: nothing is cut there unless COLUMNS asks for it


def console(stderr: bool = False) -> "Console":
    """A rich console on stdout or stderr that prints text as it is: no markup, no emoji, no guessed colours."""
    from rich.console import Console

    stream: Any = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or os.environ.get("COLUMNS", "").isdigit() else UNCUT
    return Console(file=stream, width=width, highlight=False, markup=False, emoji=False)


def printable(text: str) -> str:
    """Text from an artifact, safe to show: control characters, which could drive a terminal, stand as escapes."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def size_text(nbytes: float) -> str:
    """Bytes with three digits and a decimal unit: `512 B`, `1.50 kB`, `269 MB`."""
    if abs(nbytes) < 1000:
        return f"{nbytes:.0f} B"
    for unit in ("kB", "MB", "GB", "TB", "PB"):
        nbytes /= 1000
        if abs(nbytes) < 999.5 or unit == "PB":
            break
    return f"{_three_digits(nbytes)} {unit}"


def seconds_text(seconds: float | None) -> str:
    """Seconds with three digits: `1.50 s`, `12.0 ms`, `340 µs`; a dash where there are none."""
    if seconds is None or not math.isfinite(seconds):
        return "–"
    if seconds == 0:
        return "0 s"
    for unit, factor in (("s", 1.0), ("ms", 1e3), ("µs", 1e6)):
        if abs(seconds) * factor >= 0.9995 or unit == "µs":
            break
    return f"{_three_digits(seconds * factor)} {unit}"


def _three_digits(value: float) -> str:
    return f"{value:.{0 if abs(value) >= 99.95 else 1 if abs(value) >= 9.995 else 2}f}"


def count_text(count: int, what: str, plural: str = "") -> str:
    """A count and its noun: `1 weight`, `2,400 weights`."""
    return f"{count:,} {what if count == 1 else plural or what + 's'}"


def cell(text: str, style: str = "") -> "Text":
    """One line of a table: cut with an ellipsis where the terminal is narrow, never wrapped."""
    from rich.text import Text

    return Text(printable(text), style=style, no_wrap=True, overflow="ellipsis")


def print_facts(console: "Console", facts: Sequence[tuple[str, str]]) -> None:
    """Names and what they are, in two columns. Those that are empty are left out; a long word, a digest say, is never broken."""
    from rich.text import Text

    width = max((len(name) for name, value in facts if value), default=0)
    for name, value in facts:
        if value:
            lines = _wrapped(printable(value), console.width - width - 2)
            text = f"\n{' ' * (width + 2)}".join(lines)
            console.print(Text.assemble((f"{name:<{width}}  ", "dim"), text), soft_wrap=True)


def print_indented(console: "Console", line: str) -> None:
    """A line, wrapped to the terminal, the rest of it further in than its beginning."""
    from rich.text import Text

    begin = " " * (len(line) - len(line.lstrip()))
    first, *rest = _wrapped(line.lstrip(), console.width - len(begin) - 4)
    console.print(Text("\n    ".join([first, *rest]).replace("\n", f"\n{begin}")), soft_wrap=True)


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, max(width, 1), break_long_words=False, break_on_hyphens=False) or [""]


def print_table(console: "Console", title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], rest: str = "") -> None:
    """A titled table of at most MAX_ROWS rows. Nothing is printed where there are no rows; `rest` says where the others are.

    A column whose name ends in `>` stands right and is never cut; one whose name ends in `~` is wrapped, the others are cut.
    """
    from rich.table import Table
    from rich.text import Text

    if not rows:
        return
    console.print()
    console.print(cell(title, "bold"))
    table = Table(box=None, padding=(0, 1), pad_edge=True, header_style="dim")
    for column in columns:
        right = column.endswith(">")
        table.add_column(column.rstrip(">~"), justify="right" if right else "left", no_wrap=right)
    for row in rows[:MAX_ROWS]:
        cells = zip(columns, row, strict=True)
        table.add_row(*(Text(printable(text)) if name.endswith("~") else cell(text) for name, text in cells))
    with console.capture() as printed:
        console.print(table)
    console.file.write(re.sub(" +$", "", printed.get(), flags=re.MULTILINE))  # without the blanks that fill each row
    if len(rows) > MAX_ROWS:
        console.print(cell(f"   … and {len(rows) - MAX_ROWS:,} more{rest and ', ' + rest}", "dim"))


def print_paragraph(console: "Console", title: str, text: str) -> None:
    """A titled paragraph, wrapped to the terminal."""
    from rich.padding import Padding
    from rich.text import Text

    console.print()
    console.print(cell(title, "bold"))
    console.print(Padding(Text(printable(text)), (0, 0, 0, 2), expand=False))


@contextmanager
def transfer_progress(title: str, total: int | None = None) -> Iterator[Callable[[int, int], None] | None]:
    """A bar on stderr for work that tells how far it is: `report(done, total)`. None where stderr is no terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console(stderr=True), transient=True) as bar:
        task = bar.add_task(printable(title), total=total)
        yield lambda done, total: bar.update(task, completed=done, total=total)
