"""How a script spells operators and names: the same overloads with the same arguments, and no code from a trace."""

import types
from collections.abc import Callable
from typing import Any

import pytest
import torch
from script_cases import CPU, Recording, digest, leaf, module_of, source_of, step, straight, v

from tidalctl.artifacts.trace.tape import values_in
from tidalctl.compiler.dynamic.program import Program, ProgramFile, ProgramRead, ProgramStep
from tidalctl.compiler.script.writer import program_source

ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "aten.mul_.Tensor": ((v(0), v(1)), (v(0), 3)),
    "aten.copy_.default": ((v(0), v(1)),),
    "aten.transpose.int": ((v(0), 0, -1),),
    "aten.view.default": ((v(0), [2, 8]), (v(0), [-1])),
    "aten.where.self": ((v(5), v(0), v(1)),),
    "aten.stack.default": (([v(0), v(1)],), ([v(0), v(1)], 1)),
    "aten.split.Tensor": ((v(0), 2),),
    "aten._to_copy.default": (
        (v(2), {"dtype": {"dtype": "float32"}}),
        (v(0), {"dtype": {"dtype": "float16"}, "memory_format": {"memory_format": "preserve_format"}}),
    ),
    "aten.fill_.Tensor": ((v(0), v(6)),),
    "aten.add.Tensor": ((v(0), -1), (v(0), v(1), {"alpha": -2})),
    "aten.addmm.default": ((v(0), v(1), v(1), {"beta": 0.5, "alpha": 2}),),
    "aten.full.default": (([2], 1.5, CPU), ([2], 1, {**CPU, "dtype": {"dtype": "int64"}})),
    "aten.zeros.default": (([2],), ([2], {**CPU, "layout": {"layout": "strided"}})),
    "aten.clamp.default": ((v(0), {"float": "-inf"}, float("inf")), (v(0), None, float("nan"))),
    "aten.mul.Tensor": ((v(0), True), (v(0), {"complex": [1.0, -0.0]}), (v(0), {"expression": "1 + 0.5"})),
}
INPUTS = {
    0: torch.linspace(-2, 7, 16).reshape(4, 4),
    1: torch.linspace(1, 3, 16).reshape(4, 4),
    2: torch.ones(4, 4, dtype=torch.bfloat16),
    3: torch.tensor([2, 0]),
    4: torch.linspace(0, 1, 8).reshape(2, 2, 2),
    5: torch.linspace(0, 1, 16).reshape(4, 4) > 0.4,
    6: torch.tensor(2.0),
}


@pytest.mark.parametrize(("operator", "form"), [(name, form) for name, forms in ARGUMENTS.items() for form in forms], ids=str)
def test_a_spelling_dispatches_to_the_same_overload_with_the_same_arguments(operator: str, form: Any) -> None:
    keywords = form[-1] if isinstance(form[-1], dict) and not {"value", "expression", "complex"} & form[-1].keys() else {}
    arguments = form[:-1] if keywords else form
    used = sorted({*values_in(list(arguments))})
    leaves = tuple(leaf(n, f"leaf.{n}", tuple(INPUTS[n].shape), str(INPUTS[n].dtype).removeprefix("torch.")) for n in used)
    outputs = (10, 11) if "split" in operator else (10,)
    program = Program(
        leaves=leaves,
        steps=(ProgramStep(operator=operator, arguments=arguments, keywords=keywords, outputs=outputs),),
        results={"made": 10},
    )
    given = {f"leaf.{n}": INPUTS[n] for n in used}
    recorded = []
    runs: list[Callable[[Any], Any]] = [lambda w: module_of(program).build({}, w), lambda w: straight(program, {}, w, None, {})]
    for run in runs:
        copies = {name: tensor.clone() for name, tensor in given.items()}
        torch.manual_seed(0)
        with Recording() as mode:
            made = run(copies.__getitem__)["made"]
        recorded.append((mode.seen, digest(made) if "empty" not in operator else None, made.dtype, made.shape))
    assert recorded[0] == recorded[1]
    assert len(recorded[0][0]) == 1


def test_a_keyword_that_is_called_value_is_no_value_of_the_program() -> None:
    scaled = step("aten.addcmul.default", v(0), v(0), v(0), to=1, value=3)
    program = Program(leaves=(leaf(0, "w"),), steps=(scaled,), results={"made": 1})
    made = module_of(program).build({}, lambda name: INPUTS[1])["made"]
    assert torch.equal(made, torch.addcmul(INPUTS[1], INPUTS[1], INPUTS[1], value=3))


HOSTILE = '"\n    raise SystemExit(9)\n#{i}\\ue000"""\u202e\ue0000\ue001'


def test_names_of_a_trace_can_not_become_code() -> None:
    program = Program(
        files=(
            ProgramFile(name="a", path=(HOSTILE, ("event", HOSTILE)), kind="safetensors", keys=(HOSTILE,), rest=(HOSTILE,)),
            ProgramFile(name="b", path=("b",), kind="json", free={HOSTILE: "int"}, rest=(HOSTILE,)),
        ),
        reads=(ProgramRead(value=1, file="a", key=HOSTILE, dtype="float32", shape=(4, 4)),),
        leaves=(leaf(0, HOSTILE),),
        steps=(step("aten.add_.Tensor", v(0), v(1), to=0),),
        results={HOSTILE: 0},
        event_equal={HOSTILE: HOSTILE},
        event_varied={HOSTILE: "str"},
    )
    text = program_source(HOSTILE, HOSTILE, program, [HOSTILE])
    assert not any(line.strip() == "raise SystemExit(9)" for line in text.splitlines())
    assert text.isascii()
    module = types.ModuleType("d")
    exec(compile(text, "d", "exec"), module.__dict__)
    assert list(module.leaves()) == [HOSTILE]
    assert module.paths({HOSTILE: "x"}) == {"a": HOSTILE + "x", "b": "b"}
    assert (module.EQUAL, module.VARIED) == ({HOSTILE: HOSTILE}, {HOSTILE: "str"})
    assert module.FILES["b"] == {"kind": "json", "free": {HOSTILE: "int"}, "rest": (HOSTILE,)}
    assert list(module.FILES["a"]["tensors"]) == [HOSTILE]


@pytest.mark.parametrize(
    "bad",
    [
        step("aten.mul.Tensor", v(0), {"opaque": "thing"}, to=1),
        step("aten.uniform_.default", v(0), 0.0, 1.0, to=0),
        step("aten.rand.default", [2], to=1, **CPU),
        step("aten.no_such.default", v(0), to=1),
        step("os.system.default", v(0), to=1),
        step("aten.t_.default", v(0), to=1),
        step("aten.mul.Tensor", v(0), {"dtype": "load('x')"}, to=1),
    ],
    ids=str,
)
def test_what_can_not_be_spelled_is_an_error(bad: ProgramStep) -> None:
    with pytest.raises(ValueError):
        source_of(Program(leaves=(leaf(0, "w"),), steps=(bad,), results={"w": 1}))
