"""An object whose own pickling loses something of it is found when the state is stored, by the path to what is lost."""

import argparse
import collections
import copy
import datetime
import decimal
import enum
import functools
import io
import logging
import pathlib
import random
import re
import types
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from taken import take

from tidalctl.artifacts.state.skeleton import SkeletonPickler, SkeletonUnpickler
from tidalctl.compiler.side_effects.effects import Effects
from tidalctl.compiler.snapshot.structure import outline_of
from tidalctl.compiler.snapshot.writer import NotStored, write_skeleton


class Lossy:
    """Keeps of its attributes what `keep` makes of them."""

    keep: Callable[[dict[str, Any]], dict[str, Any]] = dict
    default = None

    def __init__(self, **attributes: Any) -> None:
        vars(self).update(attributes)

    def __getstate__(self) -> dict[str, Any]:
        return type(self).keep(vars(self))


class Drops(Lossy):
    keep = staticmethod(lambda held: {name: value for name, value in held.items() if name != "extra"})


class Empties(Lossy):
    keep = staticmethod(lambda held: held | {"extra": type(held["extra"])()})


class Copies(Lossy):
    keep = staticmethod(copy.copy)


class Slots:
    __slots__ = ("__dict__", "inner", "kept")

    def __init__(self, inner: Any) -> None:
        self.inner, self.kept = inner, 1

    def __reduce__(self) -> Any:
        return Slots, (None,)


class Bag(list[Any]):
    def __reduce__(self) -> Any:
        return Bag, (list(self)[:1],)


class Doubles:
    def __init__(self, weight: torch.Tensor) -> None:
        self.weight = weight

    def __reduce__(self) -> Any:
        return Doubles, (self.weight * 2,)


def lost(state: Any, tmp_path: Path) -> str | None:
    """Return what a snapshot of a state is refused for."""
    effects = Effects(ambient={}, bound={}, added={}, filled={}, modules=(), paths={})
    try:
        write_skeleton(tmp_path / "skeleton.pickle", state, effects, {}, str(tmp_path))
    except NotStored as refused:
        return refused.reason.text.partition("without loss: ")[2]
    return None


def in_a_circle() -> Any:
    node = Copies(extra=Drops(extra=1))
    node.me = [node]  # type: ignore[attr-defined]
    return node


def far_down() -> Any:
    state: Any = Empties(extra=[1])
    for _ in range(200):
        state = [state]
    return state


def compiled() -> torch.nn.Module:
    module = torch.nn.Sequential(torch.nn.Linear(2, 2))
    module[0]._compiled_call_impl = print  # what compile() sets, which would import the compiler
    return module


def clipped() -> torch.optim.Optimizer:
    optimizer = torch.optim.SGD(torch.nn.Linear(2, 2).parameters())
    optimizer.register_step_pre_hook(print)
    return optimizer


@pytest.mark.parametrize(
    ("state", "told"),
    [
        (lambda: {"tok": Empties(extra={"<end>": 26})}, 'state["tok"].extra: its length is 1, and 0'),
        (lambda: [Drops(extra=1)], "state[0].extra: lost"),
        (lambda: Empties(extra=5), "state.extra: another value"),
        (lambda: Empties(extra="a"), "state.extra: another value"),
        (lambda: Empties(extra=numpy.float32(5)), "state.extra: another value"),
        (lambda: Slots([1]), "state.inner: a list, and a NoneType"),
        (lambda: functools.partial(print, Slots({})), "state.args[0].inner: a dict"),
        (lambda: Slots(None).__reduce__, None),
        (lambda: collections.deque([Bag([1, 2])]), "state[0]: its length is 2, and 1"),
        (lambda: {Drops(extra=1), 3}, "state.extra: lost"),
        (lambda: {Drops(extra=1): "a key"}, "state.extra: lost"),
        (in_a_circle, "state.extra.extra: lost"),
        (far_down, "].extra: its length is 1, and 0"),
        (lambda: Doubles(torch.ones(2)), "state.weight: another value"),
        (lambda: Doubles(torch.zeros(2)), None),
        (lambda: numpy.array([Drops(extra=1), None]), "state[0].extra: lost"),
        (lambda: torch.nn.Sequential(Empties(extra=torch.nn.Linear(1, 1)).extra, torch.nn.ReLU()), None),
        (lambda: {"m": compiled()}, 'state["m"][0]._compiled_call_impl: lost'),
        (lambda: {"opt": clipped()}, 'state["opt"]._optimizer_step_pre_hooks: its length is 1, and 0'),
    ],
)  # fmt: skip
def test_what_an_object_does_not_give_to_pickle_is_found(state: Callable[[], Any], told: str | None, tmp_path: Path) -> None:
    what = lost(state(), tmp_path)
    assert what is None if told is None else what is not None and told in what, what


class Flags(enum.Flag):
    ONE = 1
    TWO = 2


class RebuildsItsLock:
    def __init__(self) -> None:
        self.lock, self.default, self.names = io.BytesIO(b"x"), None, {"a", ("b", 2), 3.5}

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("lock", "default")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, lock=io.BytesIO(b"x"))

    default = None


def hooked() -> torch.nn.Module:
    module = torch.nn.Sequential(torch.nn.LSTM(2, 2), torch.nn.BatchNorm1d(2))
    module.register_forward_hook(print)
    module.handle = module[1].register_load_state_dict_pre_hook(print)
    return module


def tokenizer() -> Any:
    tokenizers = pytest.importorskip("tokenizers")
    return tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0}, unk_token="a"))


@pytest.mark.parametrize(
    "state",
    [
        hooked,
        tokenizer,
        RebuildsItsLock,
        lambda: torch.optim.AdamW(torch.nn.Linear(2, 2).parameters()),
        lambda: [torch.Generator().manual_seed(3), numpy.random.default_rng(3), random.Random(3)],
        lambda: [float("nan"), -0.0, decimal.Decimal("NaN"), numpy.float64("nan"), torch.tensor(float("nan"))],
        lambda: [re.compile("a"), pathlib.Path("/a/b"), datetime.timedelta(1), uuid.uuid4(), Flags.ONE | Flags.TWO, object()],
        lambda: [logging.getLogger("x"), print, [].append, hooked, io.BytesIO(b"a"), torch.device("cpu"), range(3), Flags],
        lambda: [types.SimpleNamespace(a=[1]), argparse.Namespace(b=2), collections.defaultdict(list, a=[1])],
        lambda: {frozenset((1, 2)), (1, (2, "a")), None, 2.5, pathlib.Path("/"), Flags.ONE, Copies(extra=1)},
        lambda: [torch.ones(3, 3).to_sparse(), torch.ones(2, device="meta"), torch.ones(2, dtype=torch.cfloat).conj()],
        lambda: [numpy.ones((3, 3))[:, 1], numpy.array("2020", "M8[D]"), numpy.zeros(2, [("a", "i4"), ("o", "O")])],
    ],
)
def test_what_loses_nothing_is_stored(state: Callable[[], Any], tmp_path: Path) -> None:
    assert lost(state(), tmp_path) is None


def test_a_class_whose_instances_share_a_value_may_leave_it_out(tmp_path: Path) -> None:
    assert lost(Copies(default=None), tmp_path) is None


GLOBALS = """
class Tok:
    def __init__(self):
        self.special = {"<end>": 26}
    def __getstate__(self):
        return {**vars(self), "special": {}}
TOK, KEPT = None, {}
@tidalctl.init(static=True)
def load():
    global TOK
    TOK = Tok()
    return {"tok": TOK}
@tidalctl.init(static=True)
def fill():
    KEPT["tok"] = Tok()
def handler(event, context):
    return (load if event["bind"] else fill)()
"""


@pytest.mark.parametrize(("bind", "path"), [(True, 'state["tok"].special'), (False, 'app.KEPT["tok"].special')])
def test_a_cause_names_the_attribute_also_in_a_global_that_init_sets(bind: bool, path: str, tmp_path: Path) -> None:
    cause = take(tmp_path, GLOBALS, {"bind": bind}).cause
    assert cause is not None and cause.code == "not-picklable"
    assert f"{path}: its length is 1, and 0 when it is restored" in cause.text


class Odd(list[Any]):
    def __len__(self) -> int:
        raise ValueError("no length")


def test_a_container_that_can_not_be_compared_is_not_stored(tmp_path: Path) -> None:
    assert lost([Odd([1])], tmp_path) == "it can't be compared with what is read back: ValueError: no length"


def test_outlines_differ_where_states_do_and_nowhere_else() -> None:
    def state(number: int) -> Any:
        return {"model": torch.nn.Linear(2, 2), "run": [types.SimpleNamespace(id=number, at={"a", 2})], "again": {}}

    def again(value: Any) -> Any:
        file = io.BytesIO()
        pickler = SkeletonPickler(file, {})
        pickler.dump(value)
        return SkeletonUnpickler(io.BytesIO(file.getvalue()), pickler.storages.__getitem__, None).load()

    first = list(outline_of(state(1)))
    assert list(outline_of(again(state(1)))) == first
    differing = {one[0] for one, other in zip(first, outline_of(state(2)), strict=True) if one != other}
    assert differing == {'state["run"][0].id', 'state["run"][0]'}  # the latter's pickle
    drawn = [list(outline_of({"rng": random.Random(seed)})) for seed in (1, 2)]
    assert [one[0] for one, other in zip(*drawn, strict=True) if one != other] == ['state["rng"]']
