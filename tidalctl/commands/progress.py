"""Progress of a measurement, on a terminal."""

import sys


def show_progress(text: str) -> None:
    """Show one line that the next one replaces; no thread draws it, so that nothing runs beside what is measured."""
    if sys.stderr.isatty():
        print(f"\r\x1b[2K{text}", end="", file=sys.stderr, flush=True)
