"""Recalls what imports would work out anew: bytecode of texts, automata of patterns, and what a library found in a folder.

Until the first output, Python's `dataclasses` and `collections` call what stands here in the place of the builtin that compiles, and
`re` what stands here in the place of its compiler. What the bundle doesn't know is worked out, as ever. A library's cached function is
called with the paths of the trace, before anybody else calls it, and made to return what the bundle holds: its cache keeps that.
"""

import collections
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import msgspec

from tidalctl.artifacts.bundle.directory import read_checked
from tidalctl.artifacts.bundle.import_cache import (
    CACHED,
    Recalled,
    Scan,
    decode_recalled,
    is_as_stamped,
    load,
    scanned_folder,
    scans_in,
)
from tidalctl.artifacts.bundle.manifest import PROVENANCE, RECALL, Manifest


class Recall:
    """What a bundle holds of this; nothing before `begin`, and where the bundle is of another Python. Raises Corrupt or Truncated."""

    def __init__(self, bundle: Path, manifest: Manifest) -> None:
        self._bundle = bundle
        self._file = bundle / RECALL
        self._manifest = manifest
        self._undo: list[Callable[[], None]] = []
        self.texts = self.patterns = self.scans = 0  # that were recalled
        self.changed: set[str] = set()  # folders that are not as they were

    def begin(self, check: bool) -> Mapping[str, Callable[[ModuleType], None]]:
        """Stand in for what compiles. Returns what is to be called with modules, by name, when they have run."""
        if RECALL not in self._manifest.files:
            return {}
        recalled = decode_recalled(read_checked(self._bundle, self._manifest, RECALL, check=check), self._file)
        if recalled is None:
            return {}
        import dataclasses  # the function's imports begin with it, as soon as there is something to recall
        from re import _compiler  # type: ignore[attr-defined]

        self._stand_in(vars(dataclasses), "exec", self._compiled(recalled, "exec", exec))
        self._stand_in(vars(collections), "eval", self._compiled(recalled, "eval", eval))
        self._stand_in(vars(_compiler), "compile", self._automaton(recalled, _compiler.compile, _compiler._sre.compile))
        return {
            name: lambda module, known=known: self._fill(module, scans_in(known, self._file))  # type: ignore[misc]
            for name, known in recalled.scans.items()
        }

    def counts(self) -> dict[str, int]:
        """What was recalled, and folders that had changed, so that a library looked through them itself."""
        return {"texts": self.texts, "patterns": self.patterns, "scans": self.scans, "changed": len(self.changed)}

    def end(self) -> None:
        """All is as it was."""
        while self._undo:
            self._undo.pop()()

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

    def _compiled(self, recalled: Recalled, mode: str, builtin: Callable[..., Any]) -> Callable[..., Any]:
        codes = {text: code for (its, text), code in recalled.texts.items() if its == mode}

        def run(source: Any, names: Any, locals: Any = None, /) -> Any:  # noqa: A002 - as the builtins call it
            code = codes.get(source) if type(source) is str else None
            if code is None:
                return builtin(source, names, locals)
            self.texts += 1
            return builtin(load(code, self._file), names, locals)

        return run

    def _automaton(self, recalled: Recalled, original: Callable[..., Any], make: Callable[..., Any]) -> Callable[..., Any]:
        known = recalled.patterns

        def automaton(pattern: Any, flags: Any = 0) -> Any:
            found = known.get((pattern, flags)) if type(pattern) in (str, bytes) else None
            if found is None:
                return original(pattern, flags)
            self.patterns += 1
            flags, code, groups, names, indices = load(found, self._file)
            return make(pattern, flags, code, groups, names, indices)

        return automaton

    def _fill(self, module: ModuleType, scans: list[Scan]) -> None:
        """Have a function's cache filled, as long as it is empty, and the folders are as they were."""
        cached: Any = vars(module).get(scans[0].function)
        function = getattr(cached, "__wrapped__", None)
        if not isinstance(cached, CACHED) or not isinstance(function, FunctionType) or function.__code__.co_argcount != 1:
            return
        if cached.cache_info().currsize:
            return  # it has been asked already
        entry = str(module.__file__).removesuffix(f"{module.__name__.replace('.', '/')}.py")
        stamps = _stamps(self._bundle)
        answers: dict[Any, Any] = {}
        alike: dict[str, bool] = {}
        for scan in scans:
            path = entry + scan.path
            folder = scanned_folder(path).removeprefix(entry)
            if folder not in alike:
                alike[folder] = folder in stamps and is_as_stamped(entry + folder, stamps[folder])
            if alike[folder]:
                answers[Path(path) if scan.pathlike else path] = scan.made
            else:
                self.changed.add(folder)
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


class _Scanned(msgspec.Struct, frozen=True):
    scanned: dict[str, dict[str, tuple[int, int]]] = {}


def _stamps(bundle: Path) -> dict[str, dict[str, tuple[int, int]]]:
    """What the folders were at compile; nothing where the provenance is gone or says something else."""
    try:
        return msgspec.json.decode((bundle / PROVENANCE).read_bytes(), type=_Scanned).scanned
    except (OSError, ValueError, RecursionError):
        return {}
