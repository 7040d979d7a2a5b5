"""The working directory and the environment's variables, as a process has changed them before it calls init: init may look at them."""

import os
from collections.abc import Callable, Iterable

from tidalctl.artifacts.records import digest_json

OF_TORCH = ("TORCHINDUCTOR_CACHE_DIR",)  # set by whichever import of its compiler comes first, always the same


class Surroundings:
    """As they are when this is made, which is once the function is imported. Ask it where init is called."""

    def __init__(self) -> None:
        self._directory = os.getcwd()
        self._environ = dict(os.environ)

    def moved(self, roots: Callable[[], Iterable[str]]) -> str:
        """Where the process has gone since, empty where it has not: relative to the first of `roots` that it is in, else absolute."""
        now = os.getcwd()
        if now == self._directory:
            return ""
        root = next((root for root in roots() if now == root or now.startswith(root + os.sep)), "")
        return f"project:{os.path.relpath(now, root)}" if root else now

    def assigned(self) -> dict[str, str]:
        """The variables that were set or taken away since, with digests of what they are now."""
        now = os.environ
        names = {name for name in {*now, *self._environ} if now.get(name) != self._environ.get(name)}
        return {name: variable_digest(name) for name in sorted(names.difference(OF_TORCH))}

    def accept(self, before: dict[str, str]) -> None:
        """What differs from `before`, an earlier environment, was set by a restored state in init's name: it counts as here before."""
        for name in {*before, *os.environ}:
            value = os.environ.get(name)
            if value != before.get(name):
                self._environ.pop(name, None)
                if value is not None:
                    self._environ[name] = value


def variable_digest(name: str) -> str:
    return digest_json([os.environ.get(name)])
