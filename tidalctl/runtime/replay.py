"""Replay: the user's own init runs, with its reads of what the bundle holds answered from the bundle's weights.

The files are opened as ever, so that what is wrong with them is told as the plain function tells it; their data is not read. When init
has returned, nothing of this is on the path any more.

Limits: loaders that were taken by name in other ways than an import (`partial(safe_open)`, `from torch import load`) are not answered.
"""

import contextlib
import importlib
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch

from tidalctl.artifacts.bundle.manifest import Answer, BundleWeight
from tidalctl.lineage.answered_reads import Answers
from tidalctl.lineage.loaders import LoaderWatch
from tidalctl.runtime.weights.file_mapping import PrivateMapping

Memory = Callable[[str], torch.UntypedStorage]


class Replay:
    """Answers for calls of init. `sources` holds [size, mtime_ns] of each file that answers stand for.

    After `run`, for its call: `answered` tensors, of `answered_bytes`, came from the bundle.
    """

    def __init__(self, answers: Sequence[Answer], sources: Mapping[str, Any], root: str, memory: Memory) -> None:
        self.answered = self.answered_bytes = 0
        self._sources = sources
        self._answers = answers
        self._root = root
        self._memory = memory

    def run(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call init. What it raises is raised."""
        answers = Answers(self._answers, self._sources, self._root, self._memory)
        if any(answer.file.endswith(".safetensors") for answer in self._answers):
            # init would import it; done before the watch looks for it, there is nothing to hook into later imports for
            with contextlib.suppress(ImportError):
                importlib.import_module("safetensors")
        try:
            with LoaderWatch(lambda file: None, answers):
                return function(*args, **kwargs)
        finally:
            self.answered, self.answered_bytes = answers.count, answers.nbytes


class EntryMemory:
    """The memory that one Replay wants: the content of weights' entries, on the CPU, in private memory, afresh each time.

    The first call for an entry gives it in one mapping that all entries share, the second in another, and so on.
    """

    def __init__(
        self,
        weights: Iterable[BundleWeight],
        map_file: Callable[[str], PrivateMapping],
        need: Callable[[Iterable[str]], None] = lambda names: None,
    ) -> None:
        self._need = need  # returns when these weights are there
        self._weights = {weight.name: weight for weight in weights}
        self._map_file = map_file
        self._mappings: dict[tuple[str, int], PrivateMapping] = {}
        self._given: dict[str, int] = {}
        self._lock = threading.Lock()

    def __call__(self, name: str) -> torch.UntypedStorage:
        weight = self._weights[name]
        if weight.nbytes == 0:
            return torch.UntypedStorage(0)
        with self._lock:
            turn = self._given[name] = self._given.get(name, -1) + 1
            place = (weight.file, turn)
            if place not in self._mappings:
                self._mappings[place] = self._map_file(weight.file)
            memory = self._mappings[place].memory
        self._need([name])
        return torch.frombuffer(memory, dtype=torch.uint8, count=weight.nbytes, offset=weight.offset).untyped_storage()
