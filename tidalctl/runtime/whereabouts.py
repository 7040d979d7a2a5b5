"""Tells `inspect` where the modules lie that were served from the code pack: it would find out itself, one `realpath` after the other.

`inspect.getmodule`, which torch asks some hundred times while it is imported, keeps the files of all modules in two dicts. What it
would enter there at its next look is entered when a module runs. Nothing is where this Python keeps no such dicts.
"""

import os
import stat
import sys
from types import ModuleType


class Whereabouts:
    """What `inspect` knows of where modules lie. Nothing is entered where it was not imported before this was made."""

    def __init__(self) -> None:
        inspect = sys.modules.get("inspect")
        self._names: dict[str, str] | None = getattr(inspect, "modulesbyfile", None)
        self._files: dict[str, str] | None = getattr(inspect, "_filesbymodname", None)
        self._real: dict[str, bool] = {}  # folders, by whether no link leads there

    def enter(self, name: str, place: str) -> None:
        """A module that is about to run, from the source at `place`, which is no link itself."""
        module = sys.modules.get(name)
        if self._names is None or self._files is None or type(module) is not ModuleType:
            return
        if vars(module).get("__file__") == place and self._is_real(os.path.dirname(place)):
            self._files[name] = place
            self._names[place] = name

    def _is_real(self, folder: str) -> bool:
        """Whether no link leads there. Asked once of each folder."""
        real = self._real.get(folder)
        if real is None:
            real = folder == "/" or (bool(folder) and self._is_real(os.path.dirname(folder)) and not _is_link(folder))
            self._real[folder] = real
        return real


def _is_link(place: str) -> bool:
    try:
        return stat.S_ISLNK(os.lstat(place).st_mode)
    except OSError:
        return True
