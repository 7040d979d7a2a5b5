"""What the snapshot's process watches while init runs: modules that it imports, generators that it seeds, threads that it starts."""

import contextlib
import functools
import importlib.machinery
import inspect
import random
import sys
import threading
import types
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from tidalctl.ambient import CUDA_RNG

if TYPE_CHECKING:
    from tidalctl.compiler.module_state import ModuleState


@contextlib.contextmanager
def after_imports(tell: Callable[[types.ModuleType], None]) -> Iterator[None]:
    """Tell of each module of source that is imported meanwhile, when it has run."""
    loader = importlib.machinery.SourceFileLoader
    original = loader.exec_module
    inherited = "exec_module" not in vars(loader)  # and put back as such; another watch may be around this one

    def exec_module(self: importlib.machinery.SourceFileLoader, module: types.ModuleType) -> None:
        original(self, module)
        tell(module)

    setattr(loader, "exec_module", exec_module)  # noqa: B010 - a method
    try:
        yield
    finally:
        if inherited:
            delattr(loader, "exec_module")
        else:
            setattr(loader, "exec_module", original)  # noqa: B010


def noting_imports(modules: "ModuleState") -> contextlib.AbstractContextManager[None]:
    """Tell the module state of the project's own modules that are imported meanwhile."""
    return after_imports(lambda module: modules.note_module(module.__name__) if modules.owns(module) else None)


class Threads:
    """Make it before init, and ask it after: no snapshot holds a thread."""

    def __init__(self) -> None:
        self._before = frozenset(sys._current_frames())

    def started(self, modules: "ModuleState") -> str:
        """What a thread of the project's code that init has started runs, and still does; empty for none. Libraries' are their own."""
        threads = {thread.ident: thread for thread in threading.enumerate()}
        for number, top in sys._current_frames().items():
            if number in self._before:
                continue
            thread = threads.get(number)
            for work in (type(thread), *_targets(thread)):
                if modules.owns_file(_file_of(work)):
                    return str(getattr(work, "__qualname__", type(work).__qualname__))
            frame: types.FrameType | None = top
            while frame is not None:
                if modules.owns_file(frame.f_code.co_filename):
                    return frame.f_code.co_qualname
                frame = frame.f_back
        return ""


def _targets(thread: threading.Thread | None) -> Iterator[Any]:
    """What a thread was given to run."""
    for name in ("_target", "function"):  # a timer's
        if (target := getattr(thread, name, None)) is not None:
            yield target.func if isinstance(target, functools.partial) else target


def _file_of(work: Any) -> str:
    """Of a function or a class; of another object, that of its class."""
    inner = inspect.unwrap(getattr(work, "__func__", work))
    if isinstance(inner, types.FunctionType):
        return inner.__code__.co_filename
    kind = inner if isinstance(inner, type) else type(inner)
    return str(getattr(sys.modules.get(kind.__module__), "__file__", None) or "")


@contextlib.contextmanager
def noting_seeds() -> Iterator[set[str]]:
    """Note which generators are seeded meanwhile, by the names that ambient.py gives them.

    Not those whose state is put back afterwards, as `fork_rng` does: they go on from where they were.
    """
    import torch

    noted: set[str] = set()
    seeds: list[tuple[Any, str, tuple[str, ...]]] = [
        *((owner, "manual_seed", ("torch.rng", CUDA_RNG)) for owner in (torch, torch.random)),
        *((torch.cuda, name, (CUDA_RNG,)) for name in ("manual_seed", "manual_seed_all")),
        (random, "seed", ("random",)),
    ]
    states: list[tuple[Any, str, tuple[str, ...]]] = [
        *((owner, "set_rng_state", ("torch.rng",)) for owner in (torch, torch.random)),
        *((torch.cuda, name, (CUDA_RNG,)) for name in ("set_rng_state", "set_rng_state_all")),
        (random, "setstate", ("random",)),
    ]
    if "numpy.random" in sys.modules:
        seeds.append((sys.modules["numpy.random"], "seed", ("numpy.random",)))
        states.append((sys.modules["numpy.random"], "set_state", ("numpy.random",)))
    places = [*((*place, noted.update) for place in seeds), *((*place, noted.difference_update) for place in states)]
    originals = [getattr(owner, name) for owner, name, _, _ in places]

    def noting(original: Any, generators: tuple[str, ...], note: Callable[[Iterable[str]], None]) -> Any:
        def call(*arguments: Any, **keywords: Any) -> Any:
            note(generators)
            return original(*arguments, **keywords)

        return call

    for (owner, name, generators, note), original in zip(places, originals, strict=True):
        setattr(owner, name, noting(original, generators, note))
    try:
        yield noted
    finally:
        for (owner, name, _, _), original in zip(places, originals, strict=True):
            setattr(owner, name, original)
