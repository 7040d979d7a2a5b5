"""Holds the script of an init against plain runs of it, in one process: traces and plans the init as trace and compile do, runs both
with each event, and compares states, errors and what is left in the generators."""

import contextlib
import io
import json
import pickle
import random
import sys
import types
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy
import torch
import torch._dynamo  # sets an environment variable; torch.load under a dispatch mode imports it, in the first program only
from random_inits import Event, RandomProgram

from tidalctl.artifacts.state.skeleton import SkeletonPickler, skeleton_digest
from tidalctl.artifacts.state.storages import digest_of, storage_names, storage_of
from tidalctl.compiler.dynamic.derivation import Planned, plan_program
from tidalctl.compiler.dynamic.recorded_init import EventInit
from tidalctl.compiler.dynamic.slicing import NotSliced
from tidalctl.compiler.script.writer import program_source
from tidalctl.function.init_mark import Init
from tidalctl.function.process_settings import apply_ambient, changed, read_ambient
from tidalctl.lineage.capture import CapturingTape
from tidalctl.lineage.identity import SourceDigests
from tidalctl.lineage.loaders import LoaderWatch
from tidalctl.lineage.tape import Tape
from tidalctl.tracer.init.call import record_init
from tidalctl.tracer.process.clock import TraceClock
from tidalctl.tracer.process.files import FileRecorder

MODULE = "random_program"
GENERATORS = ("torch.rng", "random", "numpy.random")


@dataclass
class Verdict:
    """What became of a program. `outcome` is script, fallback or raises. The rest is about events: those of no trace that the script
    served, why it refused others, and why it refused traced ones."""

    outcome: str
    reason: str = ""
    served: int = 0
    refusals: list[str] = field(default_factory=list)
    traced_refusals: list[str] = field(default_factory=list)


class Wrong(AssertionError):
    """The script gives something else than the plain init."""


@dataclass
class Plain:
    """A plain run: its state, or what it raised; the state's skeleton and storages; what the run left in the process."""

    error: Exception | None
    skeleton: str
    storages: dict[str, torch.UntypedStorage]
    ambient: dict[str, Any]


class Bench:
    """Runs programs in a folder of files. A context: the loaders are watched meanwhile, and the folder is the working directory."""

    def __init__(self, world: Path) -> None:
        self.world = world
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> "Bench":
        self._stack.enter_context(contextlib.chdir(self.world))
        self._stack.callback(apply_ambient, {name: read_ambient()[name] for name in GENERATORS})
        self._stack.callback(torch.set_num_threads, torch.get_num_threads())
        self._stack.callback(sys.modules.pop, MODULE, None)
        torch.set_num_threads(1)  # threads that wait for each other over a handful of numbers take ten times as long
        for seed in (torch.manual_seed, random.seed, numpy.random.seed):
            seed(12345)
        self.begin = {name: read_ambient()[name] for name in GENERATORS}
        self.clock = TraceClock()
        self.files = FileRecorder(self.clock, str(self.world))
        self._stack.callback(self.files.stop)
        self.watch = self._stack.enter_context(LoaderWatch(self.files.note))
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.close()

    def check(self, program: RandomProgram) -> Verdict:
        """Derive the script, and hold it against plain runs for all events. Raises Wrong."""
        code = compile(program.source, f"{MODULE}.py", "exec")
        self.files._opened.clear()
        digests = SourceDigests()
        try:
            inits = [self._traced(code, event, Tape(n, str(self.world), digests.of)) for n, event in enumerate(program.traced)]
        except Exception as error:  # noqa: BLE001 - a program that raises gives no trace
            return Verdict("raises", f"{type(error).__name__}: {error}")
        opened = tuple(file.given for file in self.files.files() if file.phase == "init")
        inits = [EventInit(init.event, init.call, init.weights, init.records, opened) for init in inits]
        try:
            planned = plan_program(inits, str(self.world), program.vary)
            source = program_source("app:handler", "app:load", planned.program, ["torch", "safetensors"])
        except (NotSliced, ValueError) as reason:
            return Verdict("fallback", str(reason))
        template = Template(self, code, program.traced[0], planned)
        script: dict[str, Any] = {"__name__": "dynamic_init"}
        exec(compile(source, "dynamic_init.py", "exec"), script)
        verdict = Verdict("script")
        for event in (*program.traced, *program.unseen):
            try:
                refusal = self._hold(code, script, template, event)
            except Wrong as wrong:
                raise Wrong(f"{wrong}\nevent {event}\n{program}\n\n{source}") from None
            if refusal:
                (verdict.traced_refusals if event in program.traced else verdict.refusals).append(refusal)
            elif event not in program.traced:
                verdict.served += 1
        return verdict

    def _module(self, code: types.CodeType) -> Any:
        module = sys.modules[MODULE] = types.ModuleType(MODULE)
        exec(code, vars(module))
        apply_ambient(self.begin)
        return module.load

    def _traced(self, code: types.CodeType, event: Event, tape: Tape) -> EventInit:
        load = self._module(code)
        self.watch.tape = tape
        try:
            with self.clock.entering("init"):
                made = record_init(Init(load, False), (event,), {}, event, tape)
        finally:
            self.watch.tape = None
        return EventInit(event, made.call, tuple(weight for weight, _ in made.weights(0)), tuple(tape.records), ())

    def capture(self, code: types.CodeType, event: Event, wanted: set[str]) -> dict[str, torch.Tensor]:
        """The contents with these identities, as a second run of init makes them."""
        tape = CapturingTape(wanted, root=str(self.world))
        self._traced(code, event, tape)
        return tape.captured

    def plain(self, code: types.CodeType, event: Event) -> Plain:
        load = self._module(code)
        before = read_ambient()
        try:
            state = load(json.loads(json.dumps(event)))
        except Exception as error:  # noqa: BLE001 - whatever it is, the script must not answer
            return Plain(error, "", {}, {})
        ambient = changed(before, read_ambient())
        pickler = SkeletonPickler(io.BytesIO(), {cdata: paths[0] for cdata, (paths, _, _) in storage_names(state).items()})
        pickler.dump(state)
        return Plain(None, skeleton_digest(state), {n: storage.clone() for n, storage in pickler.storages.items()}, ambient)

    def _hold(self, code: types.CodeType, script: dict[str, Any], template: "Template", event: Event) -> str | None:
        """Why the script does not serve the event; None where it serves it right. Raises Wrong."""
        plain = self.plain(code, event)
        reason = script["refusal"](event)
        if reason:
            return str(reason)
        apply_ambient({**self.begin, **template.plain.ambient})
        weights = Weights(template)
        try:
            made = script["build"](event, weights)
        except Exception as error:  # a random program's script may raise whatever its operators raise
            if plain.error is None and (weights.asked or not isinstance(error, ValueError)):
                raise Wrong(f"build raises {type(error).__name__}: {error}") from error
            return f"build: {error}"
        if plain.error is not None:
            raise Wrong(f"the plain run raises {type(plain.error).__name__}: {plain.error}, and the script does not")
        now, wanted = read_ambient(), {**self.begin, **plain.ambient}
        if others := [name for name in GENERATORS if state_bytes(now[name]) != state_bytes(wanted[name])]:
            raise Wrong(f"{others} are left otherwise than by the plain run")
        if set(plain.ambient) - set(GENERATORS) != set(template.plain.ambient) - set(GENERATORS):
            raise Wrong("the plain run leaves other settings")
        template.compare(plain, made, weights)
        return None


class Template:
    """What a bundle would hold: the first traced event's state, without what the script makes, and the bases that it starts from."""

    def __init__(self, bench: Bench, code: types.CodeType, event: Event, planned: Planned) -> None:
        self.planned = planned
        self.plain = bench.plain(code, event)
        self.storages = {name: one for name, one in self.plain.storages.items() if name not in planned.dynamic}
        captured = bench.capture(code, event, {base.identity for base in planned.bases})
        self.storages |= {base.name: captured[base.identity].untyped_storage() for base in planned.bases}

    def compare(self, plain: Plain, made: dict[str, torch.Tensor], weights: "Weights") -> None:
        """Raise Wrong where the state with what was made differs from the plain one in its structure or in a byte."""
        if sorted(made) != sorted(self.planned.dynamic):
            raise Wrong(f"build makes {sorted(made)}, and not {sorted(self.planned.dynamic)}")
        if plain.skeleton != self.plain.skeleton:
            raise Wrong("the plain state has another skeleton")
        state = {name: weights.asked.get(name) or self.storages.get(name) for name in plain.storages} | {
            name: storage_of(tensor) for name, tensor in made.items()
        }
        for name, wanted in plain.storages.items():
            found = state[name]
            if found is None or found.nbytes() != wanted.nbytes() or digest_of(found) != digest_of(wanted):
                raise Wrong(f"{name} holds other bytes")
        if len({storage._cdata for storage in state.values() if storage is not None}) != len(state):
            raise Wrong("weights share their memory with others than in the plain run")


class Weights:
    """What `weights(name)` of one build is: copies of the template's entries, in the geometries of the program's leaves."""

    def __init__(self, template: Template) -> None:
        self._template = template
        self._leaves = {leaf.name: leaf for leaf in template.planned.program.leaves}
        self.asked: dict[str, torch.UntypedStorage] = {}

    def __call__(self, name: str) -> torch.Tensor:
        leaf = self._leaves[name]
        storage = self.asked.setdefault(name, self._template.storages[name].clone())
        return torch.empty(0, dtype=getattr(torch, leaf.dtype)).set_(storage, leaf.offset, leaf.shape, leaf.stride)


def state_bytes(value: Any) -> bytes:
    """Of a generator's state, to compare by."""
    return value.numpy().tobytes() if isinstance(value, torch.Tensor) else pickle.dumps(value)
