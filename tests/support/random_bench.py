"""The harness that holds the dynamic programs of random init programs against plain runs of them: it traces and plans a program as
trace and compile do, runs both with each event, and compares states, errors and what is left in the process."""

import contextlib
import functools
import io
import json
import os
import pickle
import random
import re
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy
import torch
import torch._dynamo  # sets an environment variable; torch.load under a dispatch mode imports it, in the first program only
from random_author import RandomProgram
from random_world import Event

from tidalctl.artifacts.state.skeleton import SkeletonPickler, SkeletonUnpickler, skeleton_digest
from tidalctl.artifacts.state.storages import digest_of, storage_names, storage_of, tensors_of
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

MODULE = "random_program"


@dataclass
class Verdict:
    """What became of a program. `outcome` is sliced, a named fallback, or raises; `served` and `refused` count events of no trace."""

    outcome: str
    reason: str = ""
    served: int = 0
    refused: int = 0
    raised: int = 0
    refusals: list[str] = field(default_factory=list)


class Wrong(AssertionError):
    """The dynamic program gives something else than the plain one."""


class Opened:
    """The files that are opened while it is on, by name as they were given. One a process: an audit hook can't be removed."""

    def __init__(self) -> None:
        self.on = False
        self.given: dict[str, str] = {}
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and self.on and isinstance(arguments[0], str | os.PathLike):
            self.note(os.fspath(arguments[0]))

    def note(self, given: str) -> None:
        if self.on and not given.endswith((".py", ".pyc")) and not os.path.abspath(given).startswith(("/proc/", "/sys/")):
            self.given.setdefault(os.path.abspath(given), given)

    def files(self) -> tuple[str, ...]:
        return tuple(given for path, given in self.given.items() if os.path.isfile(path))


@functools.cache
def opened_files() -> Opened:
    return Opened()


@dataclass
class Plain:
    """A plain run: the state, or what was raised, and what the run left in the process."""

    state: Any
    error: Exception | None
    ambient: dict[str, Any]


class Bench:
    """Runs programs in a folder of files. A context: the loaders are watched meanwhile, and the folder is the working directory."""

    def __init__(self, world: Path) -> None:
        self.world = str(world)
        self.watch = LoaderWatch(opened_files().note)
        self._stack = contextlib.ExitStack()
        self.begin: dict[str, Any] = {}

    def __enter__(self) -> "Bench":
        self._stack.enter_context(contextlib.chdir(self.world))
        now = read_ambient()
        self._before: dict[str, Any] = {name: now[name] for name in ("torch.rng", "random", "numpy.random") if name in now}
        self._threads = torch.get_num_threads()
        torch.set_num_threads(1)  # threads that wait for each other over a handful of numbers take ten times as long
        torch.manual_seed(987654321)
        random.seed(987654321)
        numpy.random.seed(12345)
        now = read_ambient()
        self.begin = {name: now[name] for name in ("torch.rng", "random", "numpy.random")}
        self._stack.enter_context(self.watch)
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.close()
        sys.modules.pop(MODULE, None)
        apply_ambient(self._before)
        torch.set_num_threads(self._threads)

    def check(self, program: RandomProgram) -> Verdict:
        """Trace, plan, and hold the dynamic program against plain runs of all events. Raises Wrong."""
        code = compile(program.source, f"{MODULE}.py", "exec")
        load = self._module(code)
        digests, inits, traced = SourceDigests(), [], []
        files: tuple[str, ...] = ()
        for index, event in enumerate(program.traced):
            try:
                init, files = self._traced(load, event, index, digests)
            except Exception as error:  # noqa: BLE001 - a program that raises gives no trace
                return Verdict("raises", f"{type(error).__name__}: {error}")
            inits.append(init)
            traced.append(event)
        inits = [EventInit(i.event, i.call, i.weights, i.records, files) for i in inits]
        try:
            planned = plan_program(inits, self.world, program.vary)
        except NotSliced as reason:
            return Verdict("fallback", str(reason))
        try:
            source = program_source("app:handler", "app:load", planned.program, ["torch", "safetensors"])
        except ValueError as reason:
            return Verdict("fallback", f"not spelled: {reason}")
        template = Template(self, code, inits, planned)
        script: dict[str, Any] = {"__name__": "dynamic_init"}
        exec(compile(source, "dynamic_init.py", "exec"), script)
        verdict = Verdict("sliced")
        for event in (*program.traced, *program.unseen):
            seen = event in program.traced
            try:
                how = self._hold(code, script, template, event)
            except Wrong as wrong:
                raise Wrong(f"{wrong}\nevent {event} ({'traced' if seen else 'unseen'})\n{program}\n\n{source}") from None
            if seen and how:
                verdict.refusals.append(f"TRACED {how}")
            elif seen:
                continue
            elif how.startswith("raised"):
                verdict.raised += 1
            elif how:
                verdict.refused += 1
                verdict.refusals.append(how)
            else:
                verdict.served += 1
        return verdict

    def _module(self, code: types.CodeType) -> Any:
        module = types.ModuleType(MODULE)
        sys.modules[MODULE] = module
        exec(code, vars(module))
        return module.load

    def _traced(self, load: Any, event: Event, index: int, digests: SourceDigests) -> tuple[EventInit, tuple[str, ...]]:
        opened = opened_files()
        if index == 0:
            opened.given.clear()
        apply_ambient(self.begin)
        tape = Tape(index, self.world, digests.of)
        self.watch.tape, opened.on = tape, True
        try:
            made = record_init(Init(load, False), (event,), {}, event, tape)
        finally:
            self.watch.tape, opened.on = None, False
        weights = tuple(weight for weight, _ in made.weights(0))
        return EventInit(event, made.call, weights, tuple(tape.records), ()), opened.files()

    def plain(self, code: types.CodeType, event: Event) -> Plain:
        load = self._module(code)
        apply_ambient(self.begin)
        before = read_ambient()
        try:
            state, error = load(json.loads(json.dumps(event))), None
        except Exception as raised:  # noqa: BLE001 - whatever it is, the dynamic program must not answer
            state, error = None, raised
        return Plain(state, error, changed(before, read_ambient()))

    def _hold(self, code: types.CodeType, script: dict[str, Any], template: "Template", event: Event) -> str:
        """Empty where the event is served right; else why it is not served. Raises Wrong."""
        plain = self.plain(code, event)
        reason = script["refusal"](event)
        if plain.error is not None:
            if reason:
                return f"raised: {reason}"
            try:
                script["build"](event, template.weights())
            except Exception as error:  # noqa: BLE001 - any error sends the event to init
                return f"raised: {error}"
            raise Wrong(f"the plain run raises {type(plain.error).__name__}: {plain.error}, and the dynamic one does not")
        if reason:
            return str(reason)
        apply_ambient({**self.begin, **template.plain.ambient})
        weights = template.weights()
        try:
            made = script["build"](event, weights)
        except ValueError as error:
            if weights.asked:
                raise Wrong(f"build raises {error} after it asked for a weight") from error
            return f"build: {error}"
        except Exception as error:  # whatever a generated script raises is a finding
            raise Wrong(f"build raises {type(error).__name__}: {error}") from error
        now, wanted = read_ambient(), {**self.begin, **plain.ambient}
        for name in self.begin:
            if state_bytes(now[name]) != state_bytes(wanted[name]):
                raise Wrong(f"{name} is left otherwise than by the plain run")
        if {k for k in plain.ambient if k not in self.begin} != {k for k in template.plain.ambient if k not in self.begin}:
            raise Wrong("the plain run leaves other settings")
        compare_states(plain.state, template.state(made, weights))
        return ""


class Weights:
    """What `weights(name)` of one build is: copies of the template's entries, in the geometries of the program's leaves."""

    def __init__(self, template: "Template") -> None:
        self._template = template
        self._leaves = {leaf.name: leaf for leaf in template.planned.program.leaves}
        self.asked: dict[str, torch.UntypedStorage] = {}

    def __call__(self, name: str) -> torch.Tensor:
        leaf = self._leaves[name]
        if name not in self.asked:
            self.asked[name] = self._template.storages[name].clone()
        empty = torch.empty(0, dtype=getattr(torch, leaf.dtype))
        return empty.set_(self.asked[name], leaf.offset, leaf.shape, leaf.stride)


class Template:
    """What a bundle would hold: the first traced event's state, in part, and the bases that the program starts from."""

    def __init__(self, bench: Bench, code: types.CodeType, inits: list[EventInit], planned: Planned) -> None:
        self.planned = planned
        event = inits[0].event
        self.plain = bench.plain(code, event)
        state = self.plain.state
        found = storage_names(state)
        names = {address: entry[0][0] for address, entry in found.items()}
        self.storages = {entry[0][0]: entry[2].clone() for entry in found.values() if entry[0][0] not in planned.dynamic}
        file = io.BytesIO()
        pickler = SkeletonPickler(file, names)
        pickler.dump(state)
        self._skeleton = file.getvalue()
        self.storages |= {name: s.clone() for name, s in pickler.storages.items() if name.startswith("unnamed.")}
        load = bench._module(code)
        apply_ambient(bench.begin)
        tape = CapturingTape({base.identity for base in planned.bases}, root=bench.world)
        bench.watch.tape = tape
        try:
            record_init(Init(load, False), (event,), {}, event, tape)
        finally:
            bench.watch.tape = None
        for base in planned.bases:
            if base.identity not in tape.captured:
                raise Wrong(f"the content of {base.name} was not seen again in a second run")
            self.storages[base.name] = tape.captured[base.identity].clone()

    def weights(self) -> Weights:
        return Weights(self)

    def state(self, made: dict[str, torch.Tensor], weights: Weights) -> Any:
        """The skeleton over the weights made and the static ones."""
        if sorted(made) != sorted(self.planned.dynamic):
            raise Wrong(f"build makes {sorted(made)}, and not {sorted(self.planned.dynamic)}")

        @functools.cache
        def storage(name: str) -> torch.UntypedStorage:
            if name in made:
                found = storage_of(made[name])
                assert found is not None
                return found
            return weights.asked.get(name) or self.storages[name].clone()

        return SkeletonUnpickler(io.BytesIO(self._skeleton), storage, allowed=None).load()


def state_bytes(value: Any) -> bytes:
    """Of a generator's state, to compare by."""
    return value.numpy().tobytes() if isinstance(value, torch.Tensor) else pickle.dumps(value)


def compare_states(plain: Any, built: Any) -> None:
    """Raises Wrong where two states differ in anything but the addresses of their tensors."""
    if skeleton_digest(plain) != skeleton_digest(built):
        raise Wrong(f"another skeleton: {described(plain)} and {described(built)}")
    one, other = list(tensors_of(plain)), list(tensors_of(built))
    if [name for name, _ in one] != [name for name, _ in other]:
        raise Wrong("other names")
    pairs: dict[int, int] = {}
    backward: dict[int, int] = {}
    for (name, a), (_, b) in zip(one, other, strict=True):
        kinds = [(t.dtype, t.shape, t.stride(), t.storage_offset(), t.requires_grad, type(t)) for t in (a, b)]
        if kinds[0] != kinds[1]:
            raise Wrong(f"{name} is {kinds[1]} and not {kinds[0]}")
        mine, theirs = storage_of(a), storage_of(b)
        assert mine is not None
        assert theirs is not None
        if mine.nbytes() != theirs.nbytes() or digest_of(mine) != digest_of(theirs):
            raise Wrong(f"{name} holds other bytes:\n{b}\nand not\n{a}")
        there, back = pairs.setdefault(mine._cdata, theirs._cdata), backward.setdefault(theirs._cdata, mine._cdata)
        if (there, back) != (theirs._cdata, mine._cdata):
            raise Wrong(f"{name} shares its memory with other tensors than in the plain run")


def described(state: Any) -> list[tuple[str, Any, Any]]:
    return [(name, tuple(tensor.shape), str(tensor.dtype)) for name, tensor in tensors_of(state)]


def sort_of(reason: str) -> str:
    """A reason without its numbers and names, to count reasons by."""
    return re.sub(r"(aten\.[\w.]+|\d[\d.e+-]*|/\S+)", "…", reason)[:90]


def chances(count: int, first: int = 0) -> Iterator[random.Random]:
    for seed in range(first, first + count):
        yield random.Random(seed)
