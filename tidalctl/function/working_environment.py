"""The working directory and the environment's variables, as a process has changed them before it calls init: init may look at them."""

import os
from collections.abc import Iterable, Mapping, Sequence

from tidalctl.artifacts.project import inside
from tidalctl.artifacts.records import digest_json
from tidalctl.function.project_places import marked, project_marks

OF_TORCH = ("TORCHINDUCTOR_CACHE_DIR",)  # set by whichever import of its compiler comes first, always the same


class Surroundings:
    """The surroundings at this moment, to be asked later for what has changed since.

    Paths count as what they are to the project, which lies elsewhere in a bundle: `roots` are where it, or a copy of it, lies.
    """

    def __init__(self) -> None:
        self._directory = os.getcwd()
        self._environ = dict(os.environ)

    def moved(self) -> bool:
        """Whether the process has changed its working directory since."""
        return os.getcwd() != self._directory

    def place(self, roots: Iterable[str]) -> str:
        """Return the working directory relative to the first of `roots` that it is in, else absolute; empty where it is as it was."""
        now = os.getcwd()
        root = next((root for root in roots if now == root or now.startswith(inside(root))), "")
        if root:
            return f"project:{os.path.relpath(now, root)}"
        return now if self.moved() else ""

    def assigned(self) -> list[str]:
        """Return the variables that were set or taken away since."""
        return sorted(environ_changes(self._environ, os.environ))

    def accept(self, changes: Mapping[str, str | None]) -> None:
        """Take changes of variables as if they had been made before."""
        kept = {**self._environ, **changes}
        self._environ = {name: value for name, value in kept.items() if value is not None}

    def digests(self, names: Iterable[str], roots: Sequence[str]) -> dict[str, str]:
        """Return digests of variables, with marks in place of the project's folder, also by links, and of the first directory."""
        marks = [*project_marks(roots), (self._directory, "here:")]
        values = {name: os.environ.get(name) for name in names}
        return {name: digest_json([None if value is None else marked(value, marks)]) for name, value in values.items()}


def environ_changes(before: Mapping[str, str], after: Mapping[str, str]) -> dict[str, str | None]:
    """Return the variables that are not what they were, and what they are; None where they are gone."""
    names = {name for name in {*before, *after} if before.get(name) != after.get(name)}
    return {name: after.get(name) for name in names.difference(OF_TORCH)}


def set_environ(values: Mapping[str, str | None]) -> None:
    """Set variables, and take away those that are None."""
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def variable_digest(name: str) -> str:
    return digest_json([os.environ.get(name)])
