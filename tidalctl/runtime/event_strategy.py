"""How the state for one event is made: the strategy by what dynamic_init.py and the conditions say, and the Reason where init runs."""

import contextlib
import sys
import types
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from tidalctl.artifacts import fingerprint as fp
from tidalctl.artifacts.bundle.directory import read_checked
from tidalctl.artifacts.bundle.manifest import DYNAMIC_INIT, HeldState, Manifest
from tidalctl.artifacts.cause import Cause, Reason
from tidalctl.function.event_probe import arguments_digest, digest_of_json
from tidalctl.function.working_environment import Surroundings
from tidalctl.runtime import conditions
from tidalctl.runtime.process.timeline import Timeline
from tidalctl.runtime.weights.file_mapping import read_ahead


class EventStrategy:
    """The strategy for the event at hand. `reason` says why that is `eager`; it is None where the bundle's state serves the event.

    With `look_at_process` it is decided whether this process can use the bundle's state at all; then `begin` with each event.
    """

    def __init__(
        self, bundle: Path, manifest: Manifest, timeline: Timeline, roots: Callable[[], Iterable[str]], *, verify: bool
    ) -> None:
        self.event: Any = None
        self.reason: Reason | None = None
        self.process_reason: Reason | None = None  # holds for every event
        self.changed_packages: list[str] = []
        self._bundle, self._manifest, self._timeline, self._verify = bundle, manifest, timeline, verify
        self._roots = roots
        self._at_start: Surroundings  # before the program begins: see look_at_process
        self._event_digest: str | None = None
        self._dynamic_init: types.ModuleType | None = None
        self._call_conditions: conditions.CallConditions | None = None  # until the function is imported
        self._seeds: dict[str, Any] = {}  # of generators that init draws from as it finds them

    @property
    def strategy(self) -> str:
        return "eager" if self.reason else self._manifest.strategy

    @property
    def script(self) -> types.ModuleType | None:
        """The dynamic_init.py that makes weights for the event, or None."""
        return self._dynamic_init if self.strategy == "script" else None

    def look_at_process(self, argv: tuple[str, ...] | None, *, eager: bool) -> None:
        """Compare what holds for every event. `argv` is None where this process's arguments are somebody else's."""
        self._at_start = Surroundings()
        self.changed_packages = fp.changed_distributions(self._manifest.fingerprint, sys.path)
        found = conditions.process_mismatches(self._manifest, argv, self.changed_packages, self._roots)
        self.process_reason = Cause.EAGER_ASKED_FOR.of() if eager else next(found, None)

    def look_at_machine(self) -> None:
        """Compare CPU and device, once torch is imported. Raise WrongFingerprint where there is no such device."""
        mismatch = next(conditions.machine_mismatches(self._manifest), None)
        if self.process_reason is None:
            self.process_reason = mismatch
            self.reason = mismatch or self.reason

    def function_imported(self) -> None:
        """From now on what the function sets before it calls init is compared with the trace."""
        self.look_at_machine()
        self._note_seeds()
        self._call_conditions = conditions.CallConditions(self._roots)

    def begin(self, event: Any) -> None:
        """Turn to an event. What an earlier event's handler has seeded or set is nothing to this one."""
        if self._call_conditions is not None:
            self._call_conditions.restart()
            self._seeds = {}
            self._note_seeds()
        self.event = event
        self._decide()

    def decide_again(self) -> bool:
        """Decide anew where the handler has changed the event since. Return whether it has."""
        changed = self._event_digest != digest_of_json(self.event)
        if changed:
            self._decide()
        return changed

    def _decide(self) -> None:
        self._event_digest = digest_of_json(self.event)
        self.reason = self.process_reason or self._event_mismatch()

    @property
    def may_need_project(self) -> bool:
        """Whether the function may look for files that are not shipped: where init may run, as only the imported function will tell."""
        guards = [state.guard for state in self._manifest.held]
        return bool(
            self.reason is not None
            or self.strategy == "replay"
            or any(guard.left_out or guard.drawn or guard.generators for guard in guards)
            or any(guard.later_calls == "run_init" for guard in guards)
            or self._manifest.fingerprint.device != "cpu"
            or conditions.may_be_another_cpu(self._manifest)
        )

    def _event_mismatch(self) -> Reason | None:
        """Ask dynamic_init.py, and read ahead the files that its weights are made of."""
        with self._timeline.span("start"):
            script = self.read_script()
            if self._manifest.strategy == "script":
                with contextlib.suppress(LookupError, TypeError):  # refusal() says it in words
                    for path in script.files(self.event):
                        read_ahead(Path(path))
            refusal: str | None = script.refusal(self.event)
            return Cause.EVENT_NOT_SERVED.of(what=refusal) if refusal is not None else None

    def read_script(self) -> types.ModuleType:
        """Return dynamic_init.py, which compile wrote for this function. It is read once."""
        if self._dynamic_init is None:
            source = read_checked(self._bundle, self._manifest, DYNAMIC_INIT, check=self._verify)
            self._dynamic_init = types.ModuleType("tidalctl_dynamic_init")
            exec(compile(source, str(self._bundle / DYNAMIC_INIT), "exec"), self._dynamic_init.__dict__)
        return self._dynamic_init

    def call_mismatch(self, state: HeldState, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Reason | None:
        """Return why a state of the bundle is not what this call of init would give, or None."""
        reason = self.process_reason if state.number else self.reason
        if reason is None and (state.number or self.strategy != "replay"):  # which runs init with the arguments that there are
            reason = conditions.arguments_mismatch(state, self.event, arguments, keywords, [*self._roots()])
        if reason is None and state.number:
            reason = fp.cpu_mismatch(self._manifest.fingerprint, state.guard.computed)
        if reason is None and self._call_conditions is not None:
            reason = self._call_conditions.mismatch(state)
        reason = reason or conditions.generators_mismatch(state, self._seeds)
        return reason or conditions.variables_mismatch(state, self._at_start, self._roots())

    def held(self, init: str, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> HeldState | None:
        """Return the state that a call of an init asks for, or another one of this init where the bundle holds none of these arguments.

        None where it holds none of this init.
        """
        states = [state for state in self._manifest.held if state.init == init]
        if len(states) > 1:
            digest = arguments_digest(self.event, arguments, keywords, [*self._roots()])
            return next((state for state in states if state.guard.arguments == digest), states[0])
        return next(iter(states), None)

    def init_called(self, changed_environ: Mapping[str, str | None]) -> None:
        """Take what init has set for granted from now on: variables, and generators of a device that it was the first to use."""
        self._note_seeds()
        if self._call_conditions is not None:
            self._call_conditions.accept(changed_environ)

    def _note_seeds(self) -> None:
        if drawn := {name for state in self._manifest.held for name in state.guard.drawn}:
            from tidalctl.function.process_settings import seeds

            self._seeds |= seeds(name for name in sorted(drawn) if self._seeds.get(name) is None)
