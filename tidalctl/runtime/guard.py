"""What a bundle's manifest says must be as it was in the trace, for the bundle's state to be the plain init's: is it so, here and now?

Each answer is a reason against it, in words; empty where there is none.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
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


class CallConditions:
    """What must be as in the trace where init is called: torch's settings, the working directory, variables that were set since.

    Make it once the function is imported, for what the function sets from then on and before it calls init. `roots` gives where the
    project, or its copy in the bundle, lies.
    """

    def __init__(self, manifest: Manifest, roots: Callable[[], Iterable[str]]) -> None:
        self._init = manifest.init
        self._guard = manifest.guard
        self._where = roots
        self._since = Surroundings()

    def restart(self) -> None:
        """Take variables and directory as they are now for what they were: what was set until now is nothing to later calls."""
        self._since = Surroundings()

    def accept(self, changes: Mapping[str, str | None]) -> None:
        """Take variables that init has set for what they were: a later call of it is not to be blamed for them."""
        self._since.accept(changes)

    def mismatch(self) -> str | None:
        """Return the first condition that differs from the trace, or None."""
        from tidalctl.ambient import torch_settings

        guard, roots = self._guard, [os.path.realpath(root) for root in self._where()]
        if (self._since.moved() or guard.moved) and self._since.place(roots) != guard.directory:
            return f"the working directory is another one when {self._init} is called than in the trace"
        here = torch_settings()
        for name, seen in guard.settings.items():
            if here.get(name) != seen:
                return f"{name} is {here.get(name)} where {self._init} is called, and was {seen} in the trace"
        names = sorted({*self._since.assigned(), *guard.assigned})
        now = self._since.digests(names, roots)
        for name in names:
            if now[name] != guard.assigned.get(name):
                return f"the environment variable {name} is set before {self._init}, otherwise than in the trace"
        return None


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
