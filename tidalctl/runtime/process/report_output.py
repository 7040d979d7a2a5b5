"""`run --json`: the report alone on standard output, whatever the function prints."""

import json
import os
import sys
from typing import Any


class Reported:
    """From now on what is printed goes where talk goes: by Python, by C code, by child processes. `give` writes the report."""

    def __init__(self) -> None:
        self._descriptor = -1
        self._encoding = getattr(sys.stdout, "encoding", "utf-8")
        if sys.stdout is None:  # started without one: descriptor 1 is nothing, or some other file
            return
        self._descriptor = os.dup(1)
        sys.stdout.flush()
        try:
            os.dup2(2, 1)
        except OSError:  # started without a standard error: what the function prints is lost, as talk is
            os.dup2(nowhere := os.open(os.devnull, os.O_WRONLY), 1)
            os.close(nowhere)
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr] # in turn with what is said on stderr

    def give(self, report: dict[str, Any]) -> None:
        """Write it, as text that the stream's encoding has. Raises BrokenPipeError where nobody reads it."""
        if self._descriptor < 0:
            return
        try:
            data = json.dumps(report, ensure_ascii=False).encode(self._encoding)
        except UnicodeEncodeError:
            data = json.dumps(report).encode(self._encoding)
        with open(self._descriptor, "wb") as stream:
            stream.write(data + b"\n")
