"""Imports from the code pack: bytecode that is read ahead from the first millisecond, served to Python's own import system.

What is served is no more than the code object that the module's own loader would read from `__pycache__`: who finds a module, where it
lies, its spec and its loader are as ever. The pack's code stands for the source that it was made of (see unchanged_sources.py); any
other is imported the ordinary way, and counted.
"""

import _imp
import importlib
import importlib.util
import marshal
import os
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.machinery import FileFinder, ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any, Literal

import msgspec

from tidalctl.artifacts.bundle.code_pack import PackedModule, PackFile
from tidalctl.artifacts.bundle.manifest import PACK, Manifest
from tidalctl.artifacts.bundle.provenance import provenance_fields
from tidalctl.artifacts.cause import Cause, Reason
from tidalctl.artifacts.distributions import Distribution
from tidalctl.artifacts.errors import COMPILE_AGAIN, Corrupt, TidalError
from tidalctl.runtime.imports.unchanged_sources import UnchangedSources
from tidalctl.runtime.process.timeline import Timeline


class SourceTimes(msgspec.Struct, frozen=True):
    """What the provenance says of packed and scanned sources (seconds) and of the folders that they lie in (nanoseconds)."""

    module_times: dict[str, int] = {}
    folder_times: dict[str, int] = {}


class PackReader:
    """The bundle's pack, read and checked segment by segment in a thread.

    `modules` are those of installed distributions that can be served here; `unusable` says why there are none. `error` is what was
    wrong with a segment; no code of it has run.
    """

    def __init__(self, bundle: Path, manifest: Manifest, verify: bool, timeline: Timeline) -> None:
        self.modules: dict[str, PackedModule] = {}
        self.times = SourceTimes()
        self._distributions: Sequence[Distribution | None] = ()
        self.sources = UnchangedSources({}, {})
        self.unusable: Reason | None = None
        self.error: TidalError | None = None
        self.served: set[str] = set()
        self._own: dict[str, PackedModule] = {}
        self._segments: list[bytes | None] = []
        self._decoded: list[tuple[CodeType, ...] | None] = []
        self._verify = verify
        self._timeline = timeline
        self._path = bundle / PACK
        self._process = os.getpid()
        self._dropped = False
        self._kept: tuple[object, ...] = ()  # what is served no more and not freed
        if not manifest.pack:
            return
        self._file = PackFile(self._path, manifest.pack)
        index = self._file.index
        self.unusable = interpreter_mismatch(index.magic, index.optimize)
        if self.unusable is not None:
            self._file.close()
            return
        self._segments = [None] * len(index.segments)
        self._decoded = [None] * len(index.segments)
        self._read = [threading.Event() for _ in index.segments]
        threading.Thread(target=self._read_all, name="reader: pack", daemon=True).start()
        self.times = provenance_fields(bundle, SourceTimes)
        self._distributions = (*index.records, None)  # None has number -1
        self._own = {module.file: module for module in index.modules if module.own}
        self.sources = UnchangedSources(self.times.module_times, self.times.folder_times)
        self.modules = {module.name: module for module in index.modules if not module.own}

    def _read_all(self) -> None:
        try:
            with self._timeline.span("read code pack"):
                for number, event in enumerate(self._read):
                    data = self._file.read(number, self._verify)
                    if self._dropped:
                        return
                    self._segments[number] = data
                    event.set()
        except TidalError as error:
            self.error = error
        finally:
            self._file.close()
            for event in self._read:  # a segment that is not there now never will be
                event.set()

    def code(self, module: PackedModule, path: str) -> CodeType | None:
        """A module's code, with `path` for its source; None where the pack's bytes are gone. Raises Corrupt or Truncated."""
        read = self._read[module.segment]
        if self._dropped or (self._process != os.getpid() and not read.is_set()):
            return None  # dropped, or in a forked child, which has no reader
        read.wait()
        codes = self._decoded[module.segment] or self._decode(module.segment)
        if codes is None:
            return None
        try:
            code = codes[module.place]
        except IndexError:
            raise self._no_bytecode(f"none for {module.name}") from None
        _imp._fix_co_filename(code, path)  # type: ignore[attr-defined]
        self.served.add(module.name)
        return code

    def _decode(self, segment: int) -> tuple[CodeType, ...] | None:
        """A segment's code; None where its bytes are gone. Two threads may both come here, and one of them late."""
        data = self._segments[segment]
        if data is None:
            if self.error is not None:
                raise self.error
            return self._decoded[segment]
        try:
            codes = marshal.loads(data)
        except (EOFError, ValueError, TypeError, MemoryError) as error:
            raise self._no_bytecode(str(error)) from None
        if type(codes) is not tuple or not all(type(code) is CodeType for code in codes):
            raise self._no_bytecode(f"a {type(codes).__name__} of something else")
        if not self._dropped:
            self._decoded[segment] = codes
        self._segments[segment] = None
        return codes

    def _no_bytecode(self, what: str) -> TidalError:
        self.error = Corrupt(f"{self._path} holds no bytecode: {what}", COMPILE_AGAIN)
        return self.error

    def is_unchanged(self, module: PackedModule, place: str) -> bool:
        """Whether the source at `place` is the one that a module was packed from."""
        number = module.record
        distribution = self._distributions[number] if -1 <= number < len(self._distributions) else None
        return self.sources.holds(place, module.file, module.size, module.digest, distribution)

    def own_code(self, file: str, path: str) -> CodeType | None:
        """The code of one of the project's files, `code/…`; None where the pack has none."""
        module = self._own.get(file)
        return self.code(module, path) if module is not None else None

    def put_aside(self, reason: Reason) -> None:
        """Serve nothing but the project's own modules, whose sources the bundle brings."""
        if self.modules:
            self.unusable, self.modules = reason, {}

    def drop(self, *, keep_memory: bool = False) -> None:
        """Serve no more: what is imported from now on is imported the ordinary way.

        With `keep_memory` nothing is freed, which takes 15 ms, and 100 in a fork: for a process that ends soon.
        """
        if self._dropped:
            return
        self._dropped = True
        if keep_memory:
            self._kept = (self.modules, self._own)
        else:
            self._segments[:] = [None] * len(self._segments)
            self._decoded[:] = [None] * len(self._decoded)
        self.modules, self._own = {}, {}

    def check(self) -> None:
        """Raise what was wrong with the pack, even where the function has caught it: what ran instead is not what was traced."""
        if self.error is not None:
            raise self.error


def interpreter_mismatch(magic: str, optimize: int) -> Reason | None:
    if magic != importlib.util.MAGIC_NUMBER.hex():
        return Cause.OTHER_BYTECODE.of()
    return None if optimize == sys.flags.optimize else Cause.OTHER_OPTIMIZATION.of(level=optimize)


def _import_system() -> tuple[FunctionType, ...]:
    """What finds and loads a plain module. Whoever replaces one of these means to see every import."""
    loads = ("get_code", "source_to_code", "get_data", "path_stats", "get_filename")
    finds = (vars(PathFinder)["find_spec"].__func__, FileFinder.find_spec)
    return (*finds, *(getattr(SourceFileLoader, name) for name in loads))


def _is_pythons_own(functions: Iterable[FunctionType]) -> bool:
    return all("<frozen importlib" in getattr(getattr(function, "__code__", None), "co_filename", "") for function in functions)


class PackFinder:
    """Stands just before Python's own PathFinder, so that every other finder is asked first, and finds what PathFinder would.

    A submodule is looked for right where its source was, as long as nothing speaks against it; of the rest PathFinder is asked where it
    is. `changed` are modules whose source is another than at compile.
    """

    def __init__(self, pack: PackReader) -> None:
        self._pack = pack
        self.changed: set[str] = set()
        self.after: Mapping[str, Callable[[ModuleType], None]] = {}  # to be called with a module, by its name, when it has run
        self._hooks = list(sys.path_hooks)
        self._system = _import_system()
        self._alike: dict[str, bool] = {}  # folders, by whether they are as they were at compile
        self._real: dict[str, bool] = {}  # folders, by whether no link leads there

    def install(self) -> None:
        if not _is_pythons_own(self._system):
            self._pack.put_aside(Cause.IMPORT_SYSTEM_PATCHED.of())
        if self._pack.modules and PathFinder in sys.meta_path:
            sys.meta_path.insert(sys.meta_path.index(PathFinder), self)  # type: ignore[arg-type]

    def invalidate_caches(self) -> None:
        self._alike.clear()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        module = self._pack.modules.get(fullname)
        if module is None or target is not None or fullname in self._pack.served:
            return None  # a reload reads the source, as ever
        if not self._stands_before_path_finder() or _import_system() != self._system:
            return None
        place = self._place(module, path)
        if place:
            if not self._fresh(module, place):
                return None
            loader = SourceFileLoader(fullname, place)
            folders = [place.removesuffix("/__init__.py")] if module.package else None
            spec = importlib.util.spec_from_file_location(fullname, place, loader=loader, submodule_search_locations=folders)
        else:
            spec = PathFinder.find_spec(fullname, path)
            if not _is_source(spec, module) or not self._fresh(module, str(spec.origin)):  # type: ignore[union-attr]
                return spec
        if spec is not None:
            self._serve(module, spec.loader)  # type: ignore[arg-type]
        return spec

    def _stands_before_path_finder(self) -> bool:
        following = iter(sys.meta_path)
        return any(finder is self for finder in following) and next(following, None) is PathFinder

    def _place(self, module: PackedModule, path: Sequence[str] | None) -> str:
        """Where the source of a submodule is sure to lie, if it is there at all; empty where PathFinder has to look."""
        if type(path) is not list or len(path) != 1 or sys.path_hooks != self._hooks:
            return ""
        parent = module.name.rpartition(".")[0]
        spec = getattr(sys.modules.get(parent), "__spec__", None)
        relative = parent.replace(".", "/")
        folder = path[0]
        if type(getattr(spec, "loader", None)) is not SourceFileLoader or not isinstance(folder, str):
            return ""
        if not folder.startswith("/") or not folder.endswith(f"/{relative}"):
            return ""
        if type(sys.path_importer_cache.get(folder, _ABSENT)) not in (FileFinder, object):
            return ""
        place = folder + module.file[len(relative) :]
        stem = place.removesuffix("/__init__.py" if module.package else ".py")
        named = module.file.removesuffix("/__init__.py" if module.package else ".py")
        beside = module.package or named in self._pack.times.folder_times
        if beside and not self._as_before(stem, named):
            return ""
        return place if module.package or self._as_before(folder, relative) else ""

    def _as_before(self, folder: str, relative: str) -> bool:
        """Whether nothing has come into a folder, or gone from it, since compile."""
        alike = self._alike.get(folder)
        if alike is None:
            alike = self._alike[folder] = self._pack.sources.is_as_before(folder, relative)
        return alike

    def _fresh(self, module: PackedModule, place: str) -> bool:
        if self._pack.is_unchanged(module, place):
            return True
        self.changed.add(module.name)
        return False

    def _serve(self, module: PackedModule, loader: SourceFileLoader) -> None:
        """Let the loader take the code from the pack, once. From then on nothing tells it from any other."""

        def get_code(fullname: str) -> CodeType | None:
            vars(loader).pop("get_code", None)
            code = self._pack.code(module, loader.path) if fullname == module.name else None
            if code is None:
                return loader.get_code(fullname)
            self._tell_inspect(fullname, loader.path)
            return code

        loader.get_code = get_code  # type: ignore[method-assign]
        if (after := self.after.get(module.name)) is not None:

            def exec_module(made: ModuleType) -> None:
                vars(loader).pop("exec_module", None)
                loader.exec_module(made)
                after(made)

            loader.exec_module = exec_module  # type: ignore[method-assign, assignment]

    def _tell_inspect(self, name: str, file: str) -> None:
        """Note a module's file where `inspect.getmodule`, which torch calls a hundred times, would note it: after a realpath each."""
        inspect: Any = sys.modules.get("inspect")
        folder = os.path.dirname(file)
        if folder not in self._real:
            self._real[folder] = os.path.realpath(folder) == folder
        if hasattr(inspect, "_filesbymodname") and self._real[folder] and not os.path.islink(file):
            inspect._filesbymodname[name], inspect.modulesbyfile[file] = file, name

    def import_ahead(self, which: Literal["late", "pure"], wanted: Callable[[], bool]) -> None:
        """Import what the handler is going to import, or what torch asks for and hangs on no shared library, while that is `wanted`."""
        for module in list(self._pack.modules.values()):
            if getattr(module, which) and module.name not in sys.modules:
                if not wanted():
                    return
                try:
                    importlib.import_module(module.name)
                except TidalError:
                    raise
                except (Exception, SystemExit):  # noqa: BLE001 - the function will come across it, or not
                    continue


_ABSENT = object()


def _is_source(spec: ModuleSpec | None, module: PackedModule) -> bool:
    """Whether PathFinder has found the packed module's source file, or one that is called like it, and nothing of another kind."""
    return (
        spec is not None
        and type(spec.loader) is SourceFileLoader
        and vars(spec.loader) == {"name": module.name, "path": spec.origin}
        and str(spec.origin).endswith(f"/{module.file}")
        and (spec.submodule_search_locations is not None) == module.package
    )
