"""The function's own modules, imported from the bundle's `code/` and never written to."""

import functools
import importlib.machinery
import importlib.util
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePosixPath
from types import CodeType, ModuleType

from tidalctl.artifacts.bundle.manifest import CODE

PackedCode = Callable[[str], CodeType | None]


class BundleLoader(importlib.machinery.SourceFileLoader):
    """Runs source from the bundle under the path that the module calls its own, without a bytecode cache beside it.

    `stored` gives the source. `packed` gives the code that compile made of it, for a path, or None.
    """

    def __init__(self, name: str, origin: str, stored: Callable[[], bytes], packed: PackedCode) -> None:
        super().__init__(name, origin)
        self._stored = stored
        self._packed = packed

    def get_data(self, path: str | bytes) -> bytes:  # type: ignore[override]
        return self._stored() if path == self.path else super().get_data(path)  # type: ignore[arg-type]

    def packed_code(self) -> CodeType | None:
        return self._packed(self.path)

    def get_code(self, fullname: str) -> CodeType:
        return self.packed_code() or self.source_to_code(self._stored(), self.path)


class UncachedLoader(importlib.machinery.SourceFileLoader):
    """Source that is compiled anew each time, because its folder is not to be written to."""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)


def module_names(files: Iterable[str]) -> dict[str, tuple[str, bool]]:
    """By name of the module: its file, and whether it is a package."""
    found = {}
    for file in files:
        path = PurePosixPath(file)
        if path.suffix == ".py":
            package = path.name == "__init__.py"
            parts = path.parent.parts if package else path.with_suffix("").parts
            found[".".join(parts)] = (file, package)
    return found


def importable(file: str) -> bool:
    """Whether an import could run a file of this name."""
    return file.endswith((*importlib.machinery.all_suffixes(), ".pth", ".zip", ".egg"))


class BundleFinder:
    """Finds the modules among `files` of the bundle's folder `code`.

    `home` is where `__file__` points: that folder, or the project for a fallback. `stored` gives the bytes of a file `code/…`, `packed`
    the code that compile made of it, for the path that it is to have, or None.
    """

    def __init__(
        self,
        code: Path,
        files: Iterable[str],
        home: Path,
        stored: Callable[[str], bytes],
        packed: Callable[[str, str], CodeType | None],
    ) -> None:
        self.code, self.home = code, home
        self._stored = stored
        self._packed = packed
        self._modules = module_names(files)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in self._modules:
            return None
        file, package = self._modules[fullname]
        origin = str(self.home / file)
        return importlib.util.spec_from_file_location(
            fullname,
            origin,
            loader=BundleLoader(
                fullname,
                origin,
                functools.partial(self._stored, f"{CODE}/{file}"),
                functools.partial(self._packed, f"{CODE}/{file}"),
            ),
            submodule_search_locations=[str((self.code / file).parent)] if package else None,
        )


def import_from(modules: BundleFinder) -> None:
    """Let imports be answered by a bundle's modules, before any other finder, and nothing be written in its folder.

    Folders that the function itself puts on sys.path get a finder without a bytecode cache. One below a `home` that is not the bundle
    stands for the bundle's own folder of that name: data may be read from there, code may not, unless it was on sys.path before.
    """
    code, home = modules.code, modules.home
    known = tuple(Path(entry) for entry in (*sys.path, sys.prefix) if entry and Path(entry) not in (home, code))

    def finder(path: str) -> importlib.machinery.FileFinder:
        place = Path(path)
        if place.is_relative_to(home) and not any(place.is_relative_to(entry) for entry in known):
            place = code / place.relative_to(home)
        if not place.is_relative_to(code):
            raise ImportError("not in the bundle")
        extensions = (importlib.machinery.ExtensionFileLoader, importlib.machinery.EXTENSION_SUFFIXES)
        return importlib.machinery.FileFinder(str(place), extensions, (UncachedLoader, importlib.machinery.SOURCE_SUFFIXES))

    sys.path_hooks.insert(0, finder)
    sys.meta_path.insert(0, modules)  # type: ignore[arg-type]
