"""When installed sources and their folders were written, by which a start at home tells that they are as they were."""

import os
from collections.abc import Iterable
from itertools import chain
from pathlib import Path

from tidalctl.artifacts.bundle.code_pack import PackedModule, PackFile, head_digest
from tidalctl.artifacts.bundle.manifest import PACK
from tidalctl.artifacts.trace.file import Trace
from tidalctl.artifacts.trace.records import Import
from tidalctl.compiler.code.import_cache import ScannedFolder


def source_times(trace: Trace, partial: Path, scanned: Iterable[ScannedFolder]) -> dict[str, dict[str, int]]:
    """For the provenance: when packed and scanned sources were written (seconds), and the folders that they lie in (nanoseconds).

    The project's own are not among them, since the bundle holds their sources.
    """
    modules: dict[str, int] = {}
    folders: dict[str, int] = {}
    if (partial / PACK).exists():
        packed = PackFile(partial / PACK, head_digest(partial / PACK))
        packed.close()
        sources = {record.name: record.file for record in trace.of(Import)}
        for module in packed.index.modules:
            if not module.own:
                entry = sources[module.name].removesuffix(module.file)
                _note(entry, (module.file,), modules, folders)
                if module.file in modules:
                    _note(entry, (f"{folder}/" for folder in _watched(module)), modules, folders)
    for folder in scanned:
        names = chain(*folder.content.values())
        _note(folder.entry, (f"{folder.name}/{name.lstrip('/')}" for name in names), modules, folders)
    return {"module_times": dict(sorted(modules.items())), "folder_times": dict(sorted(folders.items()))}


def _watched(module: PackedModule) -> Iterable[str]:
    """The folders in which something could come to stand before a module: its own, and one of its name beside it."""
    own = os.path.dirname(module.file)
    return (own,) if module.package else (own, module.file.removesuffix(".py"))


def _note(entry: str, names: Iterable[str], modules: dict[str, int], folders: dict[str, int]) -> None:
    """Note the time of each name that is there: of those that end in "/" in `folders`."""
    for name in names:
        try:
            status = os.stat(entry + name)
        except OSError:  # no folder beside the module: if one comes, the folder that holds both changes
            continue
        if name.endswith("/"):
            folders[name.rstrip("/")] = status.st_mtime_ns
        else:
            modules[name] = int(status.st_mtime)
