"""A replay's reads: what the template answers for, and files that are opened but not read.

Written to or not, an answered tensor is as private as the one that the plain read gives, and shares memory where that one would.
"""

import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from mmap import MAP_PRIVATE
from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import _disable_current_modes

from tidalctl.artifacts.manifest import Answer
from tidalctl.artifacts.storages import storage_names, storage_of
from tidalctl.artifacts.tape import place_of
from tidalctl.lineage.identity import Quiet


def over(storage: torch.UntypedStorage, answer: Answer) -> torch.Tensor:
    """A new tensor over memory, as if an operator had just made it."""
    with _disable_current_modes():
        empty = torch.empty(0, dtype=getattr(torch, answer.dtype), device="cpu")
        # .data, because set_ counts as a write, and who looks at the version finds none in a tensor that was just made
        return empty.set_(storage, 0, answer.shape, answer.stride).data  # type: ignore[call-overload]


class Identities:
    """The identities of storages, as long as they are known. A storage's address is not given out twice meanwhile."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[str, StorageWeakRef]] = {}
        self._exposed: set[int] = set()

    def of(self, tensor: torch.Tensor) -> str:
        """Empty where it is not known."""
        storage = storage_of(tensor)
        return self._known[storage._cdata][0] if storage is not None and storage._cdata in self._known else ""

    def set(self, storage: torch.UntypedStorage, identity: str) -> None:
        """Note it; an empty one is forgotten."""
        known = self._known.get(storage._cdata)
        if known is not None:
            self._known[storage._cdata] = (identity if storage._cdata not in self._exposed else "", known[1])
        elif identity:
            self._known[storage._cdata] = (identity, StorageWeakRef(storage))

    def expose(self, storage: torch.UntypedStorage) -> None:
        """Somebody may write to it unseen from now on."""
        self.set(storage, "exposed")
        self._exposed.add(storage._cdata)
        self.set(storage, "")

    def forget_all(self) -> None:
        self._known = {address: ("", pin) for address, (_, pin) in list(self._known.items())}


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
        self.identities = Identities()
        self.count = self.nbytes = 0
        self._sources = sources
        self._root = os.path.abspath(root) if root else ""
        self._memory = memory
        self._operators: dict[str, Answer] = {}
        self._reads: dict[str, dict[str, Answer]] = {}
        for answer in answers:
            if answer.file:
                self._reads.setdefault(answer.file, {})[answer.key] = answer
            else:
                self._operators[answer.identity] = answer
        self._lock = threading.Lock()
        self.quiet = Quiet()

    @property
    def follow(self) -> bool:
        """Whether operators have to be looked at."""
        return bool(self._operators)

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

    def to_operator(self, identity: str) -> Answer | None:
        return self._operators.get(identity)

    def storage(self, answer: Answer) -> torch.UntypedStorage:
        """Memory of its own with the answer's content."""
        storage = self._memory(answer.weight)
        with self._lock:
            self.count += 1
            self.nbytes += storage.nbytes()
        return storage

    def give(self, answer: Answer) -> torch.Tensor:
        storage = self.storage(answer)
        self.note(storage, answer.identity)
        return over(storage, answer)

    def note(self, storage: torch.UntypedStorage, identity: str) -> None:
        if self.follow:
            self.identities.set(storage, identity)


class AnsweredFile:
    """What the template answers of one open safetensors file. Where the plain reads all share the file's memory, so do the answers."""

    def __init__(self, answers: Answers, found: dict[str, Answer], shared: bool) -> None:
        self._answers = answers
        self._found = found
        self._shared = shared
        self._given: dict[str, torch.UntypedStorage] = {}
        self._lock = threading.Lock()

    def whole(self, name: str, inner: Any) -> torch.Tensor | None:
        """A tensor of the file, by the stock reader's slice of it. None where the template has no answer."""
        answer = self._found.get(name)
        if answer is None or list(answer.shape) != list(inner.get_shape()):
            return None
        return over(self._storage(answer, inner), answer)

    def part(self, name: str, inner: Any, index: Any, whole: bool) -> Any:
        """A slice of it, as the stock reader makes one from memory that it shares."""
        answer = self._found.get(name)
        if answer is None or not (self._shared or whole) or list(answer.shape) != list(inner.get_shape()):
            return None
        tensor = self.whole(name, inner)
        return tensor if index is ... or tensor is None else tensor[index]

    def _storage(self, answer: Answer, inner: Any) -> torch.UntypedStorage:
        """The template's memory, or the reader's own where the template only knows the identity of what it holds."""
        with self._lock:
            storage = self._given.get(answer.key)
            if storage is None:
                storage = self._answers.storage(answer) if answer.weight else inner[...].untyped_storage()
                self._answers.note(storage, answer.identity)  # only now: it may be written to before it is read again
            if self._shared:
                self._given[answer.key] = storage
            return storage


def loaded_with(answers: Answers, original: Callable[..., Any], f: Any, *arguments: Any, **keywords: Any) -> Any:
    """torch.load over the template's memory, where that has all of the file; the plain one where not, or where it does more than load.

    Loads twice: over the mapped file, which reads nothing of its tensors, to see where each storage lies, and then without it.
    """
    file = os.fspath(f) if isinstance(f, str | os.PathLike) else ""
    found = answers.of_file(file) if isinstance(file, str) and not file.endswith(".safetensors") else {}
    storages = _storages_of(answers, found, original, file, *arguments, **keywords) if found else None
    if storages is None:
        loaded = original(f, *arguments, **keywords)
    else:
        given = iter(storages)
        loaded = original(file, map_location=lambda storage, place: next(given), weights_only=True, mmap=True)
    for paths, _, storage in storage_names(loaded).values() if found else ():
        if (answer := found.get(paths[0])) is not None:
            answers.note(storage, answer.identity)
    return loaded


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
    if not all(answer is not None and answer.weight for answer in wanted):
        return None
    storages = [answers.storage(answer) for answer in wanted if answer is not None]
    alike = all(one.nbytes() == other.nbytes() for one, (other, _) in zip(storages, listed, strict=True))
    return storages if alike else None
