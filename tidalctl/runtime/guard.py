"""What a bundle's manifest says must be as it was in the trace, for the bundle's state to be the plain init's: is it so, here and now?

Each answer is a reason against it, in words; empty where there is none.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from tidalctl.artifacts import fingerprint as fp
from tidalctl.artifacts.manifest import Manifest
from tidalctl.context import Init
from tidalctl.eventprobe import agrees, arguments_digest
from tidalctl.surroundings import Surroundings, variable_digest


def unusable_here(manifest: Manifest, argv: tuple[str, ...] | None, distributions: Sequence[str]) -> str:
    """Why no event's state can come from the bundle in this process. `argv` is None where its arguments are somebody else's.

    `distributions` are those that are not here as they were.
    """
    if manifest.strategy == "eager":
        causes = [fallback.cause for fallback in manifest.fallbacks if fallback.strategy == "eager"]
        return causes[-1] if causes else "the bundle holds no state"
    if distributions:
        return f"the bundle was made with {', '.join(distributions[:3])}, which is not installed here"
    if argv is not None and argv != manifest.guard.argv:
        return f"the function was traced with the arguments {list(manifest.guard.argv)}"
    if manifest.fingerprint.cpu_flags != fp.cpu_flags() and (other_cpu := fp.other_cpu(manifest.fingerprint)):
        return other_cpu  # found out before the function's import, since it decides where its files are looked for
    return other_environ(manifest)


def other_environ(manifest: Manifest) -> str:
    for name, seen in manifest.guard.environ.items():
        if variable_digest(name) != seen:
            return f"the environment variable {name}, which the function reads, is not what it was in the trace"
    return ""


class Here:
    """What is as in the trace where init is called, or not: torch's settings, the working directory, variables that were set since.

    Make it once the function is imported. What init leaves itself is as in the trace, too, where it gives the same after that.
    """

    def __init__(self, manifest: Manifest, roots: Callable[[], Iterable[str]]) -> None:
        self._init = manifest.init
        self._guard = manifest.guard
        self._where = roots
        self._since = Surroundings()

    def begin(self) -> None:
        """Turn to another event: what an earlier one's handler has set is nothing to it, as in a process of its own."""
        if self._guard.repeats:
            self._since = Surroundings()

    def other(self) -> str:
        """Why it is not."""
        guard, moved = self._guard, self._moved()
        reason = moved or self._otherwise(guard.settings, guard.assigned)
        if moved or not reason or not guard.repeats:
            return reason
        left = self._otherwise({**guard.settings, **guard.left}, {**guard.assigned, **guard.left_assigned})
        return reason if left else ""

    def _moved(self) -> str:
        if not (self._since.moved() or self._guard.moved) or self._since.place(self._roots()) == self._guard.directory:
            return ""
        return f"the working directory is another one when {self._init} is called than in the trace"

    def _otherwise(self, settings: dict[str, str], assigned: dict[str, str]) -> str:
        from tidalctl.ambient import torch_settings

        here = torch_settings()
        for name, seen in settings.items():
            if here.get(name) != seen:
                return f"{name} is {here.get(name)} where {self._init} is called, and was {seen} in the trace"
        if names := sorted({*self._since.assigned(), *assigned}):
            now = self._since.digests(names, self._roots())
            for name in names:
                if now[name] != assigned.get(name):
                    return f"the environment variable {name} is set before {self._init}, otherwise than in the trace"
        return ""

    def _roots(self) -> list[str]:
        return [os.path.realpath(root) for root in self._where()]


def other_generators(manifest: Manifest, seen: dict[str, str], drawn: tuple[str, ...], seeded: dict[str, Any]) -> str:
    """Why a random generator that init draws from is not as it was before init.

    `seen` are digests, by name. Those that are `drawn` from without a seed must have been left alone since `seeded` was noted.
    """
    if not seen and not drawn:
        return ""
    from tidalctl.ambient import CUDA_RNG, ambient_digests, begin_cuda, read_ambient, seeds

    for name, value in seeds(name for name in drawn if name in seeded).items():
        if value != seeded[name]:
            return f"{manifest.init} draws from {name} as it finds it, and that was seeded, or used, before"
    if seen:
        if CUDA_RNG in seen:
            begin_cuda()
        here = read_ambient()
        now = ambient_digests({name: here[name] for name in seen if name in here})
        for name, digest in seen.items():
            if now.get(name) != digest:
                return f"{manifest.init} uses {name}, which was set otherwise before it"
    return ""


def other_call(manifest: Manifest, mark: Init, event: Any, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> str:
    """Why a call of init is not the traced one, for a state that is the same each time."""
    guard = manifest.guard
    if arguments_digest(event, arguments, keywords) != guard.arguments:
        return f"{mark.name} was called with other arguments than in the trace"
    if not guard.static and not agrees(event, guard.event_reads, guard.event_whole):
        return f"{mark.name} reads fields of the event that differ from the traced ones"
    return ""
