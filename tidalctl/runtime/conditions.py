"""The conditions of a bundle: what must be as it was in the trace, for the bundle's state to be the plain init's.

Each `mismatch` returns the Reason of the first condition that differs, or None.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tidalctl.artifacts import fingerprint as fp
from tidalctl.artifacts.bundle.manifest import AddedItems, HeldState, Manifest
from tidalctl.artifacts.cause import Cause, Reason
from tidalctl.artifacts.records import digest_json
from tidalctl.function.command_line import argv_digest
from tidalctl.function.event_probe import arguments_digest
from tidalctl.function.working_environment import Surroundings, variable_digest

NAMED = 3  # packages in one reason


def process_mismatches(
    manifest: Manifest, argv: tuple[str, ...] | None, changed_packages: Sequence[str], roots: Callable[[], Iterable[str]]
) -> Iterator[Reason]:
    """Yield why no event's state can come from the bundle in this process, as far as that is known before the function's import.

    A start takes the first, `verify --here` all. `argv` is None where this process's arguments are somebody else's. `roots` gives where
    the project, or its copy, lies.
    """
    if manifest.strategy == "eager":
        reasons = [Reason(code=lost.code, text=lost.cause) for lost in manifest.fallbacks if lost.strategy == "eager"]
        yield reasons[-1] if reasons else Cause.EVENT_NOT_SERVED.of(what="it holds no state")
    for begin in range(0, len(changed_packages), NAMED):
        yield Cause.PACKAGES_DIFFER.of(packages="; ".join(changed_packages[begin : begin + NAMED]))
    if argv is not None and argv_digest(argv, roots() if argv else ()) != manifest.guard.argv:
        yield Cause.ARGUMENTS_DIFFER.of()
    yield from environ_mismatches(manifest)
    if manifest.guard.left_out:
        yield from left_out_mismatches(manifest, roots())


def may_be_another_cpu(manifest: Manifest) -> bool:
    """Whether cpu_mismatch may find a difference; known before torch is imported."""
    return manifest.guard.computed is not None and manifest.fingerprint.cpu_flags != fp.cpu_flags()


def cpu_mismatch(manifest: Manifest) -> Reason | None:
    """Compare the CPU's capability, where something of the state was computed. Imports torch then."""
    return fp.cpu_mismatch(manifest.fingerprint, manifest.guard.computed)


def environ_mismatches(manifest: Manifest) -> Iterator[Reason]:
    """Compare environment variables that init may hang on, before the program begins and so before it sets any itself."""
    for name, seen in manifest.guard.environ.items():
        if variable_digest(name) != seen:
            yield Cause.ENVIRONMENT_DIFFERS.of(name=name)


def machine_mismatches(manifest: Manifest) -> Iterator[Reason]:
    """Compare CPU and device. Imports torch. Raise WrongFingerprint where there is no such device."""
    fp.refuse_missing_device(manifest.fingerprint)
    for mismatch in (cpu_mismatch(manifest), fp.device_mismatch(manifest.fingerprint)):
        if mismatch is not None:
            yield mismatch


def checked_at_init(manifest: Manifest) -> Iterator[str]:
    """Yield in words the conditions that only a start can compare: with its event, and where the function calls init."""
    guards = [state.guard for state in manifest.held]
    guard = manifest.guard
    if manifest.strategy != "replay":
        yield f"the arguments of {', '.join(dict.fromkeys(state.init for state in manifest.held))}"
    if guard.event_whole:
        yield "the event, before the import"
    elif guard.event_reads:
        yield f"fields of the event ({', '.join(sorted(guard.event_reads))}), before the import"
    yield "the working directory, if the function changes it"
    if names := sorted({name for one in guards for name in one.settings}):
        yield f"torch's settings ({', '.join(names)})"
    if names := sorted({name for one in guards for name in (*one.generators, *one.drawn)}):
        yield f"random generators ({', '.join(names)})"
    if manifest.further:
        yield "what other inits have left, if they leave more than their states"
    if names := sorted({name for one in guards for name in (*one.assigned, *one.environ_at_init)}):
        yield f"environment variables that the function sets ({', '.join(names)})"
    else:
        yield "environment variables, if the function sets some"


def left_out_mismatches(manifest: Manifest, roots: Iterable[str]) -> Iterator[Reason]:
    """Compare the files that were read in the trace and are not shipped, where they are in one of `roots`."""
    for name, seen in manifest.guard.left_out.items():
        for root in roots:
            path = Path(root, name)
            if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() != seen:
                yield Cause.FILE_DIFFERS.of(name=name)


def order_mismatch(state: HeldState, static: bool, again: bool, asked_for: set[int], left_more: Sequence[int]) -> Reason | None:
    """Compare what calls of inits have left in this process with what they had left where this state was made.

    With `again` there was a call for this state before, and what later calls find is said by `later_calls`, but for dictionaries.
    `asked_for` are the states that were asked for, `left_more` those that leave more than items of dictionaries.
    """
    guard = state.guard
    found = asked_for.issuperset(guard.after) and (guard.order is None or [*guard.order] == [*left_more])
    if (again or found) and all(_can_add(items, static, again) for items in guard.items):
        return None
    return Cause.ORDER_DIFFERS.of(init=state.init)


def _can_add(items: AddedItems, static: bool, again: bool) -> bool:
    """Whether a dictionary lacks the keys that init adds, and has those that it had, unless init promises not to look at them.

    With `again` it may have what an earlier call has added.
    """
    from tidalctl.artifacts.state.slots import Slot, read_slot

    try:
        there = list(read_slot(Slot(items.module, items.owner, items.name)))
        others = [key for key in there if digest_json([key]) not in items.keys]
        if len(others) not in (len(there), len(there) - len(items.keys)):
            return False
        return (again or len(others) == len(there)) and (static or digest_json(others) == items.before)
    except (KeyError, TypeError):  # it is gone, or has other keys
        return False


class CallConditions:
    """What must be as in the trace where init is called: torch's settings, the working directory, variables that were set since.

    Make it once the function is imported, for what the function sets from then on and before it calls init. `roots` gives where the
    project, or its copy in the bundle, lies.
    """

    def __init__(self, roots: Callable[[], Iterable[str]]) -> None:
        self._roots = roots
        self._since = Surroundings()

    def restart(self) -> None:
        """Take variables and directory as they are now for what they were: what was set until now is nothing to later calls."""
        self._since = Surroundings()

    def accept(self, changed_environ: Mapping[str, str | None]) -> None:
        """Take variables that init has set for what they were: a later call of it is not to be blamed for them."""
        self._since.accept(changed_environ)

    def mismatch(self, state: HeldState) -> Reason | None:
        """Return the first condition of a state that differs, or None."""
        from tidalctl.function.process_settings import torch_settings

        guard, init, roots = state.guard, state.init, list(self._roots())
        if (self._since.moved() or guard.moved) and self._since.place(map(os.path.realpath, roots)) != guard.directory:
            return Cause.DIRECTORY_DIFFERS.of(init=init)
        here = torch_settings()
        for name, seen in guard.settings.items():
            if here.get(name) != seen:
                return Cause.SETTING_DIFFERS.of(name=name, now=here.get(name), init=init, traced=seen)
        names = sorted({*self._since.assigned(), *guard.assigned} - guard.environ.keys())
        now = self._since.digests(names, roots)
        for name in names:
            if now[name] != guard.assigned.get(name):
                return Cause.VARIABLE_SET_BEFORE_INIT.of(name=name, init=init)
        return None


def variables_mismatch(state: HeldState, at_start: Surroundings, roots: Iterable[str]) -> Reason | None:
    """Compare, where init is called, the variables that it may hang on. `at_start` are the surroundings before the program began."""
    guard = state.guard
    now = at_start.digests(guard.environ_at_init, list(roots)) if guard.environ_at_init else {}
    for name, before in guard.environ.items():
        seen = guard.environ_at_init.get(name, before)
        if (now[name] if name in now else variable_digest(name)) != seen:
            if name in guard.may_be_unset and name not in os.environ:
                continue  # the file that sets it was not shipped
            return Cause.VARIABLE_SET_BEFORE_INIT.of(name=name, init=state.init)
    return None


def generators_mismatch(state: HeldState, seeded: Mapping[str, Any]) -> Reason | None:
    """Compare the random generators that init draws from with what they were before the traced init.

    Those that it draws from without a seed must have been left alone since `seeded` was noted.
    """
    seen, drawn = state.guard.generators, state.guard.drawn
    if not seen and not drawn:
        return None
    from tidalctl.function.process_settings import CUDA_RNG, ambient_digests, begin_cuda, read_ambient, seeds

    for name, value in seeds(name for name in drawn if name in seeded).items():
        if value != seeded[name]:
            return Cause.GENERATOR_DIFFERS.of(init=state.init, name=name)
    if seen:
        if CUDA_RNG in seen:
            begin_cuda()
        here = read_ambient()
        now = ambient_digests({name: here[name] for name in seen if name in here})
        for name, digest in seen.items():
            if now.get(name) != digest:
                return Cause.GENERATOR_DIFFERS.of(init=state.init, name=name)
    return None


def arguments_mismatch(
    state: HeldState, event: Any, arguments: tuple[Any, ...], keywords: dict[str, Any], roots: Sequence[str]
) -> Reason | None:
    """Compare the arguments of a call of init. Which events the state serves, dynamic_init.py says."""
    same = arguments_digest(event, arguments, keywords, roots) == state.guard.arguments
    return None if same else Cause.CALL_DIFFERS.of(init=state.init)
