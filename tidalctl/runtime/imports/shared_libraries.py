"""Loads torch's shared libraries beside Python, when the function asks for torch.

Loading them is linking, relocating and running their initialisers: 0.2 s over warm files, more over cold ones, in which no interpreter
lock is needed. While a thread does it, the main thread imports what torch will import anyway and what hangs on no shared library, since
the loader's lock is taken meanwhile. What is imported is as ever, and what the function has set before it imports torch counts as ever;
the order among what torch imports is another.
"""

import ctypes
import importlib
import os
import sys
import threading
from collections.abc import Sequence
from importlib.machinery import EXTENSION_SUFFIXES, ModuleSpec
from pathlib import Path
from types import ModuleType

from tidalctl.artifacts.bundle.manifest import Manifest
from tidalctl.runtime.imports.code_pack import PackFinder
from tidalctl.runtime.process.timeline import Timeline

# as torch loads them: what they need first, for all to see; then those of them that need no Python
DEPENDENCIES = "torch/lib/libtorch_global_deps.so"
LIBRARIES = ("torch/lib/libtorch_cpu.so", "torch/lib/libtorch_cuda.so")


class LibraryLoader:
    """Stands first on sys.meta_path until torch is asked for, and finds nothing."""

    def __init__(self, manifest: Manifest, finder: PackFinder, timeline: Timeline) -> None:
        self._finder = finder
        self._timeline = timeline
        self._modules = manifest.modules
        self._libraries = [name for name in LIBRARIES if name in manifest.readahead]

    def install(self) -> None:
        if self._libraries and "torch" not in sys.modules:
            sys.meta_path.insert(0, self)  # type: ignore[arg-type]

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname == "torch":
            if self in sys.meta_path:
                sys.meta_path.remove(self)  # type: ignore[arg-type]
            self._load_beside()
        return None

    def _load_beside(self) -> None:
        folder = next((Path(entry) for entry in sys.path if entry and Path(entry, self._libraries[0]).is_file()), None)
        if folder is None:
            return
        for name in _extensions_of_python(self._modules):
            importlib.import_module(name)  # each would have to wait for the loader's lock
        thread = threading.Thread(target=self._load, args=(folder,), name="loader: libraries", daemon=True)
        thread.start()
        try:
            self._finder.import_ahead("pure", thread.is_alive)
        except BaseException:  # raised again: nobody may end the process under the loader's feet
            thread.join()
            raise

    def _load(self, folder: Path) -> None:
        """What can't be loaded here `import torch` will load in its own way, or say why not."""
        # a call of a foreign function lets go of the interpreter lock; ctypes.CDLL keeps it while it loads
        dlopen = ctypes.CDLL(None).dlopen
        dlopen.argtypes, dlopen.restype = [ctypes.c_char_p, ctypes.c_int], ctypes.c_void_p
        with self._timeline.span("load libraries"):
            if dlopen(os.fsencode(folder / DEPENDENCIES), os.RTLD_NOW | ctypes.RTLD_GLOBAL):
                for name in self._libraries:
                    dlopen(os.fsencode(folder / name), os.RTLD_NOW)


# Each imports the package that it is a part of, and that imports it in turn: imported before the package it would be loaded twice.
_PARTS_OF_PACKAGES = frozenset({"_asyncio", "_elementtree", "_zoneinfo"})


def _extensions_of_python(modules: Sequence[str]) -> list[str]:
    """Those of the standard library's own shared libraries that the trace saw imported and that are not here yet."""
    folder = next((entry for entry in sys.path if entry.endswith("/lib-dynload")), None)
    if folder is None:
        return []
    files = set(os.listdir(folder))
    names = [
        name
        for name in modules
        if name in sys.stdlib_module_names and name not in sys.modules and name not in _PARTS_OF_PACKAGES
    ]
    return [name for name in names if any(name + suffix in files for suffix in EXTENSION_SUFFIXES)]
