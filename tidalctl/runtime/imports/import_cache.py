"""The import cache of a start: bytecode of texts, automata of patterns, and what a library found in a folder.

Until the first output, Python's `dataclasses` and `collections` call what stands here in the place of the builtin that compiles, and
`re` what stands here in the place of its compiler. What the bundle doesn't know is worked out, as ever. A library's cached function is
called with the paths of the trace, before anybody else calls it, and made to return what the bundle holds: its cache keeps that.
"""

import collections
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from tidalctl.artifacts.bundle.directory import read_checked
from tidalctl.artifacts.bundle.import_cache import (
    CACHED,
    CachedImports,
    FolderContent,
    Scan,
    decode_import_cache,
    load,
    scans_in,
)
from tidalctl.artifacts.bundle.manifest import IMPORT_CACHE, Manifest
from tidalctl.runtime.imports.unchanged_sources import UnchangedSources


class ImportCache:
    """What a bundle holds of this; nothing before `begin`, and where the bundle is of another Python. Raises Corrupt or Truncated."""

    def __init__(self, bundle: Path, manifest: Manifest, sources: UnchangedSources) -> None:
        self._bundle = bundle
        self._file = bundle / IMPORT_CACHE
        self._manifest = manifest
        self._sources = sources
        self._undo: list[Callable[[], None]] = []
        self._kept: list[Callable[[], None]] = []  # what is done, and not freed
        self.texts = self.patterns = self.scans = 0  # uses of each kind
        self.changed: set[str] = set()  # folders that are not as they were

    def begin(self, check: bool) -> Mapping[str, Callable[[ModuleType], None]]:
        """Stand in for what compiles. Returns what is to be called with modules, by name, when they have run."""
        if IMPORT_CACHE not in self._manifest.files:
            return {}
        cached = decode_import_cache(read_checked(self._bundle, self._manifest, IMPORT_CACHE, check=check), self._file)
        if cached is None:
            return {}
        import dataclasses  # the function's imports begin with it, as soon as the bundle has a cache
        from re import _compiler  # type: ignore[attr-defined]

        self._stand_in(vars(dataclasses), "exec", self._compiled(cached, "exec", exec))
        self._stand_in(vars(collections), "eval", self._compiled(cached, "eval", eval))
        self._stand_in(vars(_compiler), "compile", self._automaton(cached, _compiler.compile, _compiler._sre.compile))
        return {
            name: lambda module, known=known: self._fill(module, *scans_in(known, self._file))  # type: ignore[misc]
            for name, known in cached.scans.items()
        }

    def counts(self) -> dict[str, int]:
        """Uses of the cache, and the number of folders that had changed, so that a library looked through them itself."""
        return {"texts": self.texts, "patterns": self.patterns, "scans": self.scans, "changed": len(self.changed)}

    def end(self, *, keep_memory: bool = False) -> None:
        """All is as it was. With `keep_memory` nothing is freed, which takes time: for a process that ends soon."""
        ended, self._undo = self._undo, []
        while ended:
            undo = ended.pop()
            undo()
            if keep_memory:
                self._kept.append(undo)

    def _stand_in(self, names: dict[str, Any], name: str, function: Callable[..., Any]) -> None:
        before = names.get(name)
        if name in ("exec", "eval") and before is not None:
            return  # somebody else has had the same thought

        def undo() -> None:
            if names.get(name) is not function:  # somebody has put another in our place
                return
            if before is None:
                del names[name]
            else:
                names[name] = before

        names[name] = function
        self._undo.append(undo)

    def _compiled(self, cached: CachedImports, mode: str, builtin: Callable[..., Any]) -> Callable[..., Any]:
        codes = {text: code for (its, text), code in cached.texts.items() if its == mode}

        def run(source: Any, names: Any, locals: Any = None, /) -> Any:  # noqa: A002 - as the builtins call it
            code = codes.get(source) if type(source) is str else None
            if code is None:
                return builtin(source, names, locals)
            self.texts += 1
            return builtin(load(code, self._file), names, locals)

        return run

    def _automaton(self, cached: CachedImports, original: Callable[..., Any], make: Callable[..., Any]) -> Callable[..., Any]:
        known = cached.patterns

        def automaton(pattern: Any, flags: Any = 0) -> Any:
            found = known.get((pattern, flags)) if type(pattern) in (str, bytes) else None
            if found is None:
                return original(pattern, flags)
            self.patterns += 1
            flags, code, groups, names, indices = load(found, self._file)
            return make(pattern, flags, code, groups, names, indices)

        return automaton

    def _fill(self, module: ModuleType, scans: list[Scan], folders: dict[str, FolderContent]) -> None:
        """Have a function's cache filled, as long as it is empty, and the folders are as they were."""
        cached: Any = vars(module).get(scans[0].function)
        function = getattr(cached, "__wrapped__", None)
        if not isinstance(cached, CACHED) or not isinstance(function, FunctionType) or function.__code__.co_argcount != 1:
            return
        if cached.cache_info().currsize:
            return  # it has been asked already
        entry = str(module.__file__).removesuffix(f"{module.__name__.replace('.', '/')}.py")
        answers: dict[Any, Any] = {}
        alike: dict[str, bool] = {}
        for name, content in sorted(folders.items()):  # what lies in one that is as it was is, too
            inside = any(same and name.startswith(f"{outer}/") for outer, same in alike.items())
            alike[name] = inside or self._sources.holds_folder(entry, name, content)
        for scan in scans:
            if alike[scan.folder]:
                path = entry + scan.path
                answers[Path(path) if scan.pathlike else path] = scan.made
        self.changed.update(name for name, same in alike.items() if not same)
        code, defaults = function.__code__, function.__defaults__
        function.__code__, function.__defaults__ = _answer.__code__, (answers,)
        try:
            for given in answers:
                cached(given)
        finally:
            function.__code__, function.__defaults__ = code, defaults
        self.scans += len(answers)


def _answer(path: Any, answers: Any) -> Any:
    return answers[path]
