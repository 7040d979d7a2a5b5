"""Loaders, watched: which file and key the tensors that they hand out came from. What they do inside goes onto no tape.

Watched: safetensors (`safe_open`, its slices, `load_file`), `torch.load`, `torch.from_numpy` over a memory map, and GGUF files read
with the `gguf` package. Each is wrapped when its module has been imported, and unwrapped at the end.

In a replay there is no tape, but answers: then the first two hand out the template's tensors, where it has them.
"""

import contextlib
import os
import sys
import threading
from collections.abc import Callable
from types import ModuleType, TracebackType
from typing import Any

import torch

from tidalctl.artifacts.state.storages import storage_names
from tidalctl.artifacts.trace.records import Source
from tidalctl.lineage.answered_reads import AnsweredFile, Answers, loaded_with
from tidalctl.lineage.tape import Tape


class LoaderWatch:
    """A context in which loaders note their sources on `tape`, where there is one, and the files that they open by `note_file`.

    With `answers` they are asked before anything is read.
    """

    def __init__(self, note_file: Callable[[str], None], answers: Answers | None = None) -> None:
        self.tape: Tape | None = None
        self.answers = answers
        self._note_file = note_file
        self._undo: list[tuple[Any, str, Any]] = []
        self._gguf_keys: dict[int, Source] = {}
        self._last = threading.local()

    def __enter__(self) -> "LoaderWatch":
        self._modules_before = frozenset(sys.modules)
        self._replace(torch, "load", self._torch_load(torch.load))
        self._replace(torch.serialization, "load", torch.load)
        self._replace(torch, "from_numpy", self._from_numpy(torch.from_numpy))
        for name in ("safetensors", "safetensors.torch", "gguf", "gguf.gguf_reader", "tokenizers"):
            if name in sys.modules:
                self.imported(sys.modules[name])
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        ours = {id(getattr(owner, name)): original for owner, name, original in self._undo}
        for owner, name, original in reversed(self._undo):
            setattr(owner, name, original)
        # `from safetensors import safe_open` in a module that was imported meanwhile holds the wrapper under its own name
        for imported in sys.modules.keys() - self._modules_before:
            module = sys.modules.get(imported)
            for name, value in list(getattr(module, "__dict__", {}).items()):
                if id(value) in ours:
                    setattr(module, name, ours[id(value)])
        self.answers = None  # the wrappers' classes, which only a collection frees, hold this

    def imported(self, module: ModuleType) -> None:
        """A module has just run; wrap what it offers."""
        if module.__name__ == "safetensors":
            self._everywhere(module, "safe_open", self._safe_open(module.safe_open))
        elif module.__name__ == "gguf" and self.answers is None:
            self._replace(module.GGUFReader, "__init__", self._gguf_reader(module.GGUFReader.__init__))
            self._everywhere(module, "dequantize", self._dequantize(module.dequantize))

    def _replace(self, owner: Any, name: str, new: Any) -> None:
        self._undo.append((owner, name, getattr(owner, name)))
        setattr(owner, name, new)

    def _everywhere(self, module: ModuleType, name: str, new: Any) -> None:
        """Replace it also where it was imported by name before."""
        old = getattr(module, name)
        for other in list(sys.modules.values()):
            for key, value in list(getattr(other, "__dict__", {}).items()):
                if value is old:
                    self._replace(other, key, new)

    def _safe_open(self, original: Any) -> Any:
        watch = self

        class WatchedSlice:
            def __init__(self, inner: Any, source: Source, answered: AnsweredFile | None) -> None:
                self._inner, self._source, self._answered = inner, source, answered

            def __getitem__(self, index: Any) -> Any:
                whole = index is ... or index in (slice(None), (slice(None),))
                with watch._quiet():
                    tensor = self._answered.read(self._source.key, self._inner) if self._answered else None
                    if tensor is not None:
                        return tensor if index is ... else tensor[index]
                    tensor = self._inner[index]
                watch._note(tensor, self._source, () if whole else (f"slice {index!r}",))
                return tensor

            def __getattr__(self, name: str) -> Any:
                return getattr(self._inner, name)

        class WatchedFile:
            def __init__(self, filename: Any, *arguments: Any, **keywords: Any) -> None:
                self._file = str(filename)
                watch._note_file(self._file)
                self._inner = original(filename, *arguments, **keywords)
                self._answered = watch._answered_file(self._file, *arguments, **keywords)

            def __enter__(self) -> Any:
                self._inner.__enter__()
                return self

            def __exit__(self, *error: Any) -> Any:
                return self._inner.__exit__(*error)

            def get_tensor(self, name: str) -> Any:
                with watch._quiet():
                    # a slice reads nothing, and raises what the read would
                    tensor = self._answered.read(name, self._inner.get_slice(name)) if self._answered else None
                    if tensor is not None:
                        return tensor
                    tensor = self._inner.get_tensor(name)
                watch._note(tensor, Source(file=self._file, key=name))
                return tensor

            def get_tensors(self, *arguments: Any, **keywords: Any) -> Any:
                if self._answered and not arguments and not keywords:
                    return {name: self.get_tensor(name) for name in self._inner.offset_keys()}
                with watch._quiet():
                    tensors = self._inner.get_tensors(*arguments, **keywords)
                if isinstance(tensors, dict):
                    for name, tensor in tensors.items():
                        watch._note(tensor, Source(file=self._file, key=name))
                return tensors

            def get_slice(self, name: str) -> Any:
                return WatchedSlice(self._inner.get_slice(name), Source(file=self._file, key=name), self._answered)

            def __getattr__(self, name: str) -> Any:
                return getattr(self._inner, name)

        return WatchedFile

    def _note(self, tensor: Any, source: Source, operators: tuple[str, ...] = ()) -> None:
        if isinstance(tensor, torch.Tensor) and self.tape is not None:
            self.tape.note_source(tensor, source, operators)

    def _quiet(self) -> contextlib.AbstractContextManager[None]:
        return self.tape.quiet() if self.tape is not None else contextlib.nullcontext()

    def _answered_file(
        self, file: str, framework: Any = "", device: Any = "cpu", *others: Any, backend: str = "mmap", **more: Any
    ) -> AnsweredFile | None:
        """Answers for a file that safe_open was called for with these arguments; None where there are none."""
        plain = framework not in ("pt", "torch", "pytorch") or str(device) != "cpu" or backend != "mmap" or others or more
        if self.answers is None or plain:
            return None
        found = self.answers.of_file(file)
        return AnsweredFile(self.answers, found) if found else None

    def _torch_load(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def load(f: Any, *arguments: Any, **keywords: Any) -> Any:
            with self._quiet():
                if self.answers is not None:
                    return loaded_with(self.answers, original, f, *arguments, **keywords)
                loaded = original(f, *arguments, **keywords)
            file = os.fsdecode(f) if isinstance(f, str | bytes | os.PathLike) else str(getattr(f, "name", f))
            self._note_file(file)
            for names, tensor, _ in storage_names(loaded).values():
                self._note(tensor, Source(file=file, key=names[0]))
            return loaded

        return load

    def _from_numpy(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def from_numpy(array: Any) -> torch.Tensor:
            if self.tape is None:
                return original(array)
            with self._quiet():
                tensor = original(array)
            source = self._memory_map(array)
            if source is not None:
                self._note(tensor, source)
            elif (last := getattr(self._last, "dequantized", None)) is not None and _same_elements(last[0], array):
                same = last[0].shape == array.shape and bool((last[0] == array).all())
                self._note(tensor, last[1], ("gguf.dequantize",) if same else ("gguf.dequantize", "numpy.permute"))
            return tensor

        return from_numpy

    def _memory_map(self, array: Any) -> Source | None:
        address = array.__array_interface__["data"][0]
        if address in self._gguf_keys:
            return self._gguf_keys[address]
        base = array
        while base is not None:
            if type(base).__name__ == "memmap" and getattr(base, "filename", None) is not None:
                return Source(file=str(base.filename), key=f"@{address - base.__array_interface__['data'][0]}")
            base = getattr(base, "base", None)
        return None

    def _gguf_reader(self, original: Callable[..., None]) -> Callable[..., None]:
        def init(reader: Any, path: Any, *arguments: Any, **keywords: Any) -> None:
            original(reader, path, *arguments, **keywords)
            for tensor in reader.tensors:
                address = tensor.data.__array_interface__["data"][0]
                self._gguf_keys[address] = Source(file=str(path), key=tensor.name)

        return init

    def _dequantize(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def dequantize(array: Any, *arguments: Any, **keywords: Any) -> Any:
            result = original(array, *arguments, **keywords)
            source = self._memory_map(array)
            self._last.dequantized = None if source is None else (result, source)
            return result

        return dequantize


def _same_elements(one: Any, other: Any) -> bool:
    """Whether two arrays hold the same elements in some order, by the sum of their bit patterns: layouts are permuted in NumPy."""
    if one.nbytes != other.nbytes or one.dtype != other.dtype or one.nbytes % 4:
        return False
    totals = [int(array.reshape(-1).view("uint32").sum(dtype="uint64")) for array in (one, other)]
    return totals[0] == totals[1]
