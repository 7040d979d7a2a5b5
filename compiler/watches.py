"""What the snapshot's process watches while init runs: modules that it imports, generators that it seeds, threads that it starts."""

import contextlib
import importlib.machinery
import inspect
import random
import sys
import threading
import types
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from tidalctl.ambient import CUDA_RNG

if TYPE_CHECKING:  # it imports torch, which is for the function to do
    from tidalctl.compiler.module_state import ProjectGlobals


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


def noting_imports(modules: "ProjectGlobals") -> contextlib.AbstractContextManager[None]:
    """Tell of the project's own modules that are imported meanwhile."""
    return after_imports(lambda module: modules.note_module(module.__name__) if modules.owns(module) else None)


class Threads:
    """The threads that there are: make it before init, and ask it afterwards."""

    def __init__(self) -> None:
        self._before = frozenset(sys._current_frames())

    def started(self, owns_file: Callable[[str], bool]) -> str | None:
        """Return what a living thread runs that was started since and runs code of files that are owned: the project's."""
        threads = {thread.ident: thread for thread in threading.enumerate()}
        for number, top in sys._current_frames().items():
            if number in self._before:
                continue
            thread = threads.get(number)
            # a thread that has just begun has no frame of its work yet; a timer calls its `function`
            for work in (type(thread), getattr(thread, "_target", None), getattr(thread, "function", None)):
                if work is not None and owns_file(_file_of(work)):
                    return str(getattr(work, "__qualname__", type(work).__qualname__))
            frame: types.FrameType | None = top
            while frame is not None:
                if owns_file(frame.f_code.co_filename):
                    return frame.f_code.co_qualname
                frame = frame.f_back
        return None


def _file_of(work: Any) -> str:
    """Return the file of a function or a class; of another object, that of its class."""
    inner = inspect.unwrap(getattr(work, "func", work))  # a partial's
    for known in (inner, type(inner)):
        with contextlib.suppress(TypeError, OSError):  # built in
            return inspect.getfile(known)
    return ""


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
