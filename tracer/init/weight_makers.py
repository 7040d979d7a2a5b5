"""Who makes the weights of a function that has no init: a function of the project, or statements at the top of one of its modules.

A weight is a storage that is still there after the import. After a call of the handler it is a parameter or buffer of a module whose
forward has run; where these are few, a storage that is still there. Its makers are the project's frames under which it was first seen,
as far as later writes to it happened under them, too.

Example: `MODEL = load()` on line 20 of app.py, and nothing is written to the model afterwards. `lines()` then gives `app:20`; and for a
`load()` that the handler calls for the first request, `function()` gives the frame of `load`.
"""

import ast
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, NamedTuple

import torch
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.utils._pytree import tree_leaves

from tidalctl.artifacts.state.storages import storage_of
from tidalctl.function.answered_statements import DEFINITIONS
from tidalctl.lineage.dispatch import Mode, is_for_a_wrapper, on_every_thread
from tidalctl.lineage.identity import tensors_written
from tidalctl.tracer.process.own_frames import own_frames

LEAST = 2**20  # bytes of weights that are worth a state
SMALLEST = 2**10  # bytes of a storage that is looked at
SHARE = 0.9  # of all weights' bytes that a function makes: what it does not make, a start makes as ever


class Frame(NamedTuple):
    """A call that runs: the module and the qualified name of its function, the function's first line, and the line that it is at."""

    module: str
    name: str
    file: str
    first_line: int
    line: int


class _Weight:
    """A storage with the frames that make it, outermost first, and the top-level statements that have written to it."""

    def __init__(self, storage: Any, frames: tuple[Frame, ...]) -> None:
        self.alive = torch.multiprocessing.reductions.StorageWeakRef(storage)
        self.nbytes: int = storage.nbytes()
        self.frames = frames
        self.statements: set[tuple[str, int]] = set()
        self.random = False
        self.forwarded = False  # it belongs to a module whose forward has run


class WeightMakers:
    """Watches operators while `watching` is entered. `root` is the project's folder, `handler` the qualified name of its handler."""

    def __init__(self, root: str, handler: str) -> None:
        self._root, self._handler = root, handler
        self._weights: dict[int, _Weight] = {}
        self._seeds: list[tuple[str, int]] = []
        self._known: dict[CodeType, bool] = {}  # whether a code object's function could be an init

    @contextmanager
    def watching(self) -> Iterator[None]:
        """A context: operators of all threads are noted, and whose parameters a forward takes."""
        owners: tuple[Any, ...] = (torch, torch.random)
        originals = [(owner, owner.manual_seed) for owner in owners]

        def noting(original: Callable[..., Any]) -> Callable[..., Any]:
            def manual_seed(*arguments: Any, **keywords: Any) -> Any:
                if statement := _statement(self._frames(sys._getframe(1))):
                    self._seeds.append(statement)
                return original(*arguments, **keywords)

            return manual_seed

        hook = register_module_forward_pre_hook(self._forward)
        for owner, original in originals:
            owner.manual_seed = noting(original)
        try:
            with on_every_thread(lambda: _MakersMode(self)):
                yield
        finally:
            hook.remove()
            for owner, original in originals:
                owner.manual_seed = original

    def note(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        """Note what an operator made, and what it wrote to."""
        written = {id(tensor) for tensor in tensors_written(func, args, kwargs)}
        frames: tuple[Frame, ...] | None = None
        for tensor in (*tree_leaves((args, kwargs)), *tree_leaves(out)):
            storage = storage_of(tensor) if isinstance(tensor, torch.Tensor) else None
            if storage is None or storage.nbytes() < SMALLEST or storage.device.type == "meta":
                continue
            known = self._weights.get(storage._cdata)
            known = None if known is not None and known.alive.expired() else known
            if known is not None and id(tensor) not in written:
                continue
            frames = self._frames(sys._getframe(2)) if frames is None else frames
            if known is None:
                known = self._weights[storage._cdata] = _Weight(storage, frames)
            known.frames = _common(known.frames, frames)
            known.random = known.random or torch.Tag.nondeterministic_seeded in func.tags
            if statement := _statement(frames):
                known.statements.add(statement)

    def _forward(self, module: torch.nn.Module, inputs: Any) -> None:
        for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
            storage = storage_of(tensor)
            known = self._weights.get(storage._cdata) if storage is not None else None
            if known is not None:
                known.forwarded = True

    def lines(self) -> list[tuple[str, int]]:
        """Return the top-level statements that make the weights there are, as `--init` takes them, and their bytes, by module.

        They go from the first that makes a weight, or seeds what draws one, to the last that makes or writes to one. The module with
        the most comes first; those with little are left out.
        """
        sizes: dict[str, int] = {}
        found: dict[str, set[int]] = {}
        for weight in self._weights.values():
            if weight.alive.expired() or (place := _statement(weight.frames)) is None:
                continue
            module = place[0]
            sizes[module] = sizes.get(module, 0) + weight.nbytes
            lines = found.setdefault(module, set())
            lines.update(line for name, line in weight.statements if name == module)
            if weight.random:
                seeds = [line for name, line in self._seeds if name == module and line < place[1]]
                lines.update(seeds[-1:])
        named = []
        for module in sorted((name for name in sizes if sizes[name] >= LEAST), key=lambda name: -sizes[name]):
            span = _statements_of(str(sys.modules[module].__file__), min(found[module]), max(found[module]))
            if span is not None:
                first, last = span
                named.append((f"{module}:{first}" + (f"-{last}" if last > first else ""), sizes[module]))
        return named

    def function(self) -> tuple[Frame | None, int] | None:
        """Return the innermost function that makes nearly all weights, and their bytes; None without weights worth it.

        In place of the function there is None where only the handler itself, or functions that no name leads to, make them.
        """
        # of a network it is what its modules own; what else is still there may be a cache of the latest answer
        owned = [weight for weight in self._weights.values() if weight.forwarded]
        left = [weight for weight in self._weights.values() if not weight.alive.expired()]
        weights = owned if sum(weight.nbytes for weight in owned) >= LEAST else left
        total = sum(weight.nbytes for weight in weights)
        if total < LEAST:
            return None
        made: dict[tuple[str, str], int] = {}
        places: dict[tuple[str, str], tuple[int, Frame]] = {}  # the innermost of each function
        for weight in weights:
            calls = {
                (frame.module, frame.name): (place, frame)
                for place, frame in enumerate(weight.frames)
                if frame.name not in ("<module>", self._handler)
            }
            for key, place in calls.items():
                made[key] = made.get(key, 0) + weight.nbytes
                places[key] = max(places.get(key, place), place)
        enough = [places[key] for key, nbytes in made.items() if nbytes >= SHARE * total]
        return (max(enough)[1] if enough else None), total

    def _frames(self, frame: FrameType | None) -> tuple[Frame, ...]:
        """Return the project's frames that a name leads to, and its modules', outermost first.

        Of a thread that runs none of the project's code (a library's pool) they are those of the main thread, which waits for it.
        """
        found = self._frames_of(frame)
        if not found and threading.current_thread() is not threading.main_thread():
            return self._frames_of(sys._current_frames().get(threading.main_thread().ident or 0))
        return found

    def _frames_of(self, frame: FrameType | None) -> tuple[Frame, ...]:
        found = [
            Frame(
                str(own.f_globals.get("__name__", "")),
                own.f_code.co_qualname,
                own.f_code.co_filename,
                own.f_code.co_firstlineno,
                own.f_lineno,
            )
            for own in own_frames(frame, self._root)
            if self._could_be_init(own)
        ]
        return tuple(reversed(found))

    def _could_be_init(self, frame: FrameType) -> bool:
        """Whether a name leads to a function, or it is a module's code, and it is no method of a torch module."""
        code = frame.f_code
        if code not in self._known:
            named = code.co_qualname == "<module>" or "<" not in code.co_qualname
            self._known[code] = named and not isinstance(frame.f_locals.get("self"), torch.nn.Module)
        return self._known[code]


class _MakersMode(Mode):
    """Tells WeightMakers of the operators of one thread."""

    def __init__(self, makers: WeightMakers) -> None:
        super().__init__()
        self._makers = makers

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if types and is_for_a_wrapper(types, (args, kwargs)):
            return NotImplemented
        out = func(*args, **kwargs)
        self._makers.note(func, args, kwargs, out)
        return out


def _common(one: tuple[Frame, ...], other: tuple[Frame, ...]) -> tuple[Frame, ...]:
    """Return the frames that two calls have in common, from the outermost on; of two lines in one function it is the first's."""
    same = 0
    while same < min(len(one), len(other)) and one[same][:4] == other[same][:4]:
        same += 1
    return one[:same]


def _statement(frames: tuple[Frame, ...]) -> tuple[str, int] | None:
    """Return the module whose import makes something, innermost, and the line that it is at."""
    return next(((frame.module, frame.line) for frame in reversed(frames) if frame.name == "<module>"), None)


def _statements_of(file: str, first: int, last: int) -> tuple[int, int] | None:
    """Return the first and the last line of the top-level statements that hold two lines, and of `del` statements behind them."""
    try:
        body = ast.parse(Path(file).read_bytes()).body
    except (OSError, SyntaxError, ValueError):
        return None
    ends = [node.end_lineno or node.lineno for node in body]
    begin = next((place for place, end in enumerate(ends) if end >= first), None)
    end = next((place for place, end in enumerate(ends) if end >= last), None)
    if begin is None or end is None or all(isinstance(node, DEFINITIONS) for node in body[begin : end + 1]):
        return None  # what runs in each start in any case
    while end + 1 < len(body) and isinstance(body[end + 1], ast.Delete):
        end += 1
    return body[begin].lineno, ends[end]
