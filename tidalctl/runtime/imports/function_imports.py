"""Imports of a function from its bundle: its own modules from `code/`, libraries' from the code pack, with the import cache."""

import sys
from collections.abc import Callable, Collection
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any

from tidalctl.artifacts.bundle.directory import read_checked, unlisted_files
from tidalctl.artifacts.bundle.manifest import CODE, Manifest
from tidalctl.artifacts.cause import Cause
from tidalctl.artifacts.errors import COMPILE_AGAIN, Corrupt, TidalError
from tidalctl.function.target import Handler, enter_project, import_handler
from tidalctl.runtime.imports.code_pack import PackFinder, PackReader
from tidalctl.runtime.imports.import_cache import ImportCache
from tidalctl.runtime.imports.project_modules import BundleFinder, import_from, importable, module_names
from tidalctl.runtime.imports.read_ahead import CodeReadAhead
from tidalctl.runtime.imports.shared_libraries import LibraryLoader
from tidalctl.runtime.process.timeline import Timeline


class FunctionImports:
    """Begins to read code when it is made. Call `install`, then `import_handler`."""

    def __init__(self, bundle: Path, manifest: Manifest, timeline: Timeline, *, verify: bool) -> None:
        self.read_ahead = CodeReadAhead(bundle, manifest, timeline)
        self.pack = PackReader(bundle, manifest, verify, timeline)
        self.import_cache = ImportCache(bundle, manifest, self.pack.sources)
        self.code = self.home = bundle / CODE
        self._bundle, self._manifest, self._timeline, self._verify = bundle, manifest, timeline, verify
        self._files = [name.removeprefix(f"{CODE}/") for name in manifest.files if name.startswith(f"{CODE}/")]
        self._finder: PackFinder | None = None
        self._modules_before = frozenset(sys.modules)

    def refuse_planted(self) -> None:
        """Raise Corrupt where an import could run a file in `code/` that the manifest does not list."""
        for name in unlisted_files(self._bundle, self._manifest):
            if name.startswith(f"{CODE}/") and importable(name):
                raise Corrupt(f"{self._bundle} holds {name}, which its manifest does not list", COMPILE_AGAIN)

    def install(self, home: Path, argv: tuple[str, ...] | None, changed_packages: list[str], *, plain: bool) -> None:
        """Let imports be answered from the bundle. With `plain`, only those of the function's own modules.

        `home` is where the function finds its files. Where `argv` is None, this process is somebody else's: its sys.argv stays, and its
        sys.path keeps its first entry. Raise TidalError where one of the function's modules is imported already.
        """
        if changed_packages:
            self.pack.put_aside(Cause.PACK_PACKAGES_DIFFER.of(packages="; ".join(changed_packages[:3])))
        for name in module_names(self._files):
            if name in sys.modules:
                there = getattr(sys.modules[name], "__file__", None) or "this process"
                raise TidalError(
                    f"the function's module {name} is imported already, from {there}", "start a process of its own for it"
                )
        if argv is None:
            sys.path.append(str(self.code))
        else:
            enter_project(self.code, home / self._manifest.function.source, argv)
        self.home = home
        import_from(BundleFinder(self.code, self._files, home, self._stored, self.pack.own_code))
        if plain:
            return
        self._finder = PackFinder(self.pack)
        self._finder.install()
        if self.pack.unusable is None:
            with self._timeline.span("start"):
                self._finder.after = self.import_cache.begin(self._verify)
        LibraryLoader(self._manifest, self._finder, self._timeline).install()

    def _stored(self, name: str) -> bytes:
        """Return the bytes of a file of the bundle, which may have been replaced since the start: a module may be imported late."""
        return read_checked(self._bundle, self._manifest, name, check=self._verify)

    def import_handler(self, *, names_of_state: bool) -> Handler:
        """Import the function. With `names_of_state` also what its state's skeleton names, so that this counts as time of imports."""
        with self._timeline.span("imports"):
            handler = import_handler(self._manifest.function)
            if names_of_state:
                for module in dict.fromkeys(name.partition(":")[0] for name in self._manifest.globals):
                    if module not in sys.modules:
                        __import__(module)  # a module that is gone shows later
        return handler

    def import_late(self, wanted: Callable[[], bool]) -> None:
        """While that is `wanted`, import what the handler is going to import."""
        if self._finder is not None and wanted():
            with self._timeline.span("imports"):
                self._finder.import_ahead("late", wanted)

    def counts(self) -> dict[str, Any]:
        """How this process's Python modules were imported, and why none came from the pack, where none could."""
        changed, packed = self._finder.changed if self._finder is not None else (), self.pack.served
        unusable = self.pack.unusable
        found: dict[str, Any] = {"packed": len(packed), "changed": 0, "ordinary": 0}
        for name in _new_modules(self._modules_before | packed):
            spec = getattr(sys.modules.get(name), "__dict__", {}).get("__spec__")
            source = isinstance(getattr(spec, "loader", None), SourceFileLoader)
            if source and getattr(spec, "name", None) == name:  # and not here by another name
                found["changed" if name in changed else "ordinary"] += 1
        return {**found, "unusable": unusable.text if unusable else None, "cause": unusable.code if unusable else None}

    def unforeseen(self) -> list[str]:
        """Return modules that this process imported and the trace did not list: the misses of a start."""
        return _new_modules(self._modules_before.union(self._manifest.modules))


def _new_modules(known: Collection[str]) -> list[str]:
    """Return the names of modules that are here, are not tidalctl's own, and are not among `known`."""
    return sorted(name for name in list(sys.modules) if name not in known and not name.startswith("tidalctl"))
