"""Searches a finished bundle for secrets: values of files that are not shipped, and of variables whose names look secret."""

import json
import mmap
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tidalctl.artifacts.bundle.manifest import IMPORT_CACHE, PACK
from tidalctl.artifacts.errors import CheckFailed
from tidalctl.artifacts.secret_names import is_secret_variable
from tidalctl.compiler.code.pickle_paths import path_in_skeleton
from tidalctl.compiler.dynamic.answers import texts_in

SHORTEST = 8  # bytes of a value that is looked for
_LARGEST = 2**20  # bytes of a secret file that are read


def refuse_secrets(bundle: Path, root: Path, names: Iterable[str], environ: Mapping[str, str]) -> None:
    """Raise CheckFailed where a file of the bundle holds a value of one of the project's files `names`, or a secret variable's."""
    values = {value: name for name in names for value in _values((root / name).read_bytes()[:_LARGEST])}
    for name, text in environ.items():
        if is_secret_variable(name) and not text.startswith("/"):  # which is where a secret lies
            values.setdefault(text.encode(errors="surrogateescape"), f"the environment variable {name}")
    values = {value: name for value, name in values.items() if len(value) >= SHORTEST}
    libraries = (PACK, IMPORT_CACHE)  # of the project they hold what code/ holds
    for path in sorted(p for p in bundle.rglob("*") if p.is_file() and values and p.name not in libraries):
        for value, name in values.items():
            if (place := _place_of(value, path)) is not None:
                raise CheckFailed(
                    f"{path.relative_to(bundle)}{place} holds a value of {name}, so nothing was written",
                    f"let the handler read it where it runs, or ship it on purpose: --include {name}"
                    if not name.startswith("the ")
                    else "read it in the handler, so that neither the state nor a global holds it",
                )


def _values(content: bytes) -> Iterator[bytes]:
    """Yield what a file holds: the strings of JSON; else each line, and what stands in it behind `=` or `:`."""
    try:
        parsed: Any = json.loads(content)
    except (ValueError, RecursionError):
        parsed = None
    if isinstance(parsed, dict | list):
        yield from (text.encode(errors="surrogateescape") for text in texts_in(parsed))
        return
    for line in content.splitlines():
        line = line.strip()
        if not line.startswith((b"#", b"-----")):
            value = re.split(rb"[=:]", line, maxsplit=1)[-1].strip()
            yield from {line, value, value.strip(b"\"'")}


def _place_of(value: bytes, path: Path) -> str | None:
    """Return where in a file a value stands: a line, or the path to the object that holds it. None where it does not."""
    if path.stat().st_size < len(value):
        return None
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        at = content.find(value)
        if at < 0:
            return None
        if path.suffix == ".py":
            line = content[:at].count(b"\n") + 1
            return f":{line}"
        holder = path_in_skeleton(content[:], value) if path.match("skeleton*.pickle") else None
        return f", {holder}," if holder else ""
