"""What the tests of the split of an init share: modules made from source, and the function beside its two halves."""

import copy
import importlib
import itertools
import sys
import textwrap
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tidalctl.prefix import NoPrefix, Split, split_init

_count = itertools.count()


class Maker:
    """Writes a module and imports it: `make(source)` is the module, with `load` in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.names: list[str] = []

    def __call__(self, source: str) -> Any:
        name = f"prefix_app_{next(_count)}"
        self.names.append(name)
        (self.folder / f"{name}.py").write_text(textwrap.dedent(source), encoding="utf-8")
        importlib.invalidate_caches()
        return importlib.import_module(name)


@contextmanager
def making(folder: Path) -> Iterator[Maker]:
    """A maker whose modules are imported from a folder, and forgotten in the end."""
    sys.path.insert(0, str(folder))
    sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
    maker = Maker(folder)
    try:
        yield maker
    finally:
        sys.dont_write_bytecode = before
        sys.path.remove(str(folder))
        for name in maker.names:
            sys.modules.pop(name, None)


def outcome(call: Callable[[], Any], filename: str) -> Any:
    """What a call gives: its value, or its error with the user's frames, down to the columns."""
    try:
        return ("gives", call())
    except Exception as error:  # noqa: BLE001 - compared, whatever it is
        frames = []
        for frame, line in traceback.walk_tb(error.__traceback__):
            if frame.f_code.co_filename == filename:
                frames.append((frame.f_code.co_qualname, line, frame.f_code.co_firstlineno))
        shown = [one for one in traceback.extract_tb(error.__traceback__) if one.filename == filename]
        places = [(one.name, one.lineno, one.colno, one.end_lineno, one.end_colno, one.line) for one in shown]
        return ("raises", type(error), str(error), frames, places)


def same(module: Any, *events: Any, **keywords: Any) -> Split:
    """Checks that the halves together are the function, global state included, and returns them."""
    split = split_init(module.load)
    log = getattr(module, "LOG", [])
    for event in events:
        seen = []
        for call in (module.load, lambda *a, **k: split.suffix(split.prefix(), *a, **k)):
            del log[:]
            mine = copy.deepcopy(event)
            seen.append(
                (outcome(lambda call=call, mine=mine: call(mine, **keywords), module.__file__), mine, copy.deepcopy(log))
            )
        assert seen[0] == seen[1], seen  # no test module, so pytest would not show them
    return split


def why(module: Any) -> str:
    with pytest.raises(NoPrefix) as caught:
        split_init(module.load)
    return str(caught.value)
