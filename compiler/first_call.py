"""The first call of init: which settings and variables it leaves otherwise than it found them, and the same call made once more."""

import copy
import os
from typing import Any

from tidalctl.ambient import GENERATORS, AsNow, read_ambient, torch_settings
from tidalctl.context import Init
from tidalctl.surroundings import environ_changes


class FirstCall:
    """Make it before init is called, and tell it when that is over.

    `left` are the settings that are otherwise then, in words, and `assigned` the names of such variables.
    """

    def __init__(self, mark: Init, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        self.left: dict[str, str] = {}
        self.assigned: list[str] = []
        self._function = mark.function
        self._arguments, self._keywords = _copied(arguments, keywords)
        self._settings, self._environ = torch_settings(), dict(os.environ)
        self._generators = {name: value for name, value in read_ambient().items() if name in GENERATORS}
        self._next_hook = _handles().next_id
        self._after: AsNow | None = None

    def over(self) -> None:
        self.left = {name: value for name, value in torch_settings().items() if value != self._settings[name]}
        self.assigned = sorted(environ_changes(self._environ, os.environ))
        self._after = AsNow(self._generators)

    @property
    def left_anything(self) -> bool:
        return bool(self.left or self.assigned)

    def again(self) -> Any:
        """What the same call gives where it finds what the first one left, and random generators as that found them.

        Torch numbers hooks throughout a process; they begin with the first call's number, too, so that states can be compared.
        """
        assert self._after is not None
        handles = _handles()
        last, handles.next_id = handles.next_id, self._next_hook
        try:
            with self._after.again():
                return self._function(*self._arguments, **self._keywords)
        finally:
            handles.next_id = last


def _handles() -> Any:
    """Imported late: it is the function that imports torch, after whatever it sets before."""
    from torch.utils.hooks import RemovableHandle

    return RemovableHandle


def _copied(arguments: tuple[Any, ...], keywords: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments that a handler can't change any more. What can't be copied is no JSON, and no later call is known to be alike then."""
    try:
        found: tuple[tuple[Any, ...], dict[str, Any]] = copy.deepcopy((arguments, keywords))
    except Exception:  # noqa: BLE001 - whatever an object's own copying raises
        return arguments, keywords
    return found
