"""A replay's reads: what the template answers for, and files that are opened but not read.

Written to or not, an answered tensor is as private as the one that the plain read gives, and shares memory where that one would.
"""

import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from mmap import MAP_PRIVATE
from typing import Any

import torch
from torch.utils._python_dispatch import _disable_current_modes

from tidalctl.artifacts.bundle.manifest import Answer
from tidalctl.artifacts.state.storages import storage_names
from tidalctl.artifacts.trace.tape import place_of


def over(storage: torch.UntypedStorage, answer: Answer) -> torch.Tensor:
    """A new tensor over memory, as if an operator had just made it."""
    with _disable_current_modes():
        empty = torch.empty(0, dtype=getattr(torch, answer.dtype), device="cpu")
        # .data, because set_ counts as a write, and who looks at the version finds none in a tensor that was just made
        return empty.set_(storage, 0, answer.shape, answer.stride).data  # type: ignore[call-overload]


class Answers:
    """What the template answers for, and how often it did. `memory` gives an entry's content in private memory, afresh each time.

    `sources` are [size, mtime_ns] of the files as they were: reads of one that is otherwise now are not answered.
    """

    def __init__(
        self,
        answers: Iterable[Answer],
        sources: Mapping[str, Sequence[int]],
        root: str,
        memory: Callable[[str], torch.UntypedStorage],
    ) -> None:
        self.count = self.nbytes = 0
        self._sources = sources
        self._root = os.path.abspath(root) if root else ""
        self._memory = memory
        self._reads: dict[str, dict[str, Answer]] = {}
        for answer in answers:
            self._reads.setdefault(answer.file, {})[answer.key] = answer
        self._lock = threading.Lock()

    def of_file(self, file: str) -> dict[str, Answer]:
        """The answers by key, where the file is as it was when they were taken."""
        place = place_of(file, self._root)
        found = self._reads.get(place)
        try:
            status = os.stat(file) if found else None
        except OSError:
            status = None
        same = status is not None and [status.st_size, status.st_mtime_ns] == self._sources.get(place)
        return found if found and same else {}

    def storage(self, answer: Answer) -> torch.UntypedStorage:
        """Memory of its own with the answer's content."""
        storage = self._memory(answer.weight)
        with self._lock:
            self.count += 1
            self.nbytes += storage.nbytes()
        return storage


class AnsweredFile:
    """What the template answers of one open safetensors file. As the plain reads share the file's memory, so do the answers."""

    def __init__(self, answers: Answers, found: dict[str, Answer]) -> None:
        self._answers = answers
        self._found = found
        self._given: dict[str, torch.UntypedStorage] = {}
        self._lock = threading.Lock()

    def read(self, name: str, inner: Any) -> torch.Tensor | None:
        """Return a tensor of the file, by the stock reader's slice of it; None where the template has no answer."""
        answer = self._found.get(name)
        if answer is None or list(answer.shape) != list(inner.get_shape()):
            return None
        with self._lock:
            if name not in self._given:
                self._given[name] = self._answers.storage(answer)
        return over(self._given[name], answer)


def loaded_with(answers: Answers, original: Callable[..., Any], f: Any, *arguments: Any, **keywords: Any) -> Any:
    """torch.load over the template's memory, where that has all of the file; the plain one where not, or where it does more than load.

    Loads twice: over the mapped file, which reads nothing of its tensors, to see where each storage lies, and then without it.
    """
    file = os.fspath(f) if isinstance(f, str | os.PathLike) else ""
    found = answers.of_file(file) if isinstance(file, str) and not file.endswith(".safetensors") else {}
    storages = _storages_of(answers, found, original, file, *arguments, **keywords) if found else None
    if storages is None:
        return original(f, *arguments, **keywords)
    given = iter(storages)
    return original(file, map_location=lambda storage, place: next(given), weights_only=True, mmap=True)


def _storages_of(
    answers: Answers,
    found: dict[str, Answer],
    original: Callable[..., Any],
    file: str,
    map_location: Any = "cpu",
    *others: Any,
    weights_only: Any = True,
    mmap: Any = None,
    **more: Any,
) -> list[torch.UntypedStorage] | None:
    """The template's storages in the order in which a file's are loaded; None where one is missing or more is asked for."""
    shares = mmap and torch.serialization.get_default_mmap_options() != MAP_PRIVATE  # writes go to the file
    if others or more or shares or str(map_location or "cpu") != "cpu" or weights_only not in (None, True):
        return None
    listed: list[tuple[torch.UntypedStorage, str]] = []

    def listing(storage: torch.UntypedStorage, place: str) -> torch.UntypedStorage:
        listed.append((storage, place))
        return storage

    try:
        mapped = original(file, map_location=listing, weights_only=True, mmap=True)
    except Exception:  # noqa: BLE001 - a format that can't be mapped, or no such file: the plain call tells
        return None
    names = {address: paths[0] for address, (paths, _, _) in storage_names(mapped).items()}
    wanted = [found.get(names.get(storage._cdata, "")) if place == "cpu" else None for storage, place in listed]
    if any(answer is None for answer in wanted):
        return None
    storages = [answers.storage(answer) for answer in wanted if answer is not None]
    alike = all(one.nbytes() == other.nbytes() for one, (other, _) in zip(storages, listed, strict=True))
    return storages if alike else None
