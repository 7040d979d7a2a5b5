"""A dynamic program as a script: it runs the program's very operators, and reads like code."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from script_cases import (
    Recording,
    adapter,
    base,
    build_text,
    digest,
    leaf,
    lora,
    module_of,
    on_disk,
    same,
    source_of,
    step,
    straight,
    v,
)

from tidalctl.compiler.dynamic.program import Program


def test_a_merge_by_hand_is_right_for_ranks_that_no_trace_saw(tmp_path: Path) -> None:
    program = lora()
    module = module_of(program)
    for rank in (1, 2, 5, 8):
        event = adapter(tmp_path / str(rank), program, rank)
        assert module.refusal(event) is None
        assert module.files(event) == [event["adapter"] + "/a.safetensors", event["adapter"] + "/c.json"]
        assert same(module.build(event, base()), straight(program, event, base(), *on_disk(event)))


def test_the_text_has_one_operator_a_line_and_a_comment_a_weight() -> None:
    assert build_text(lora(modules=("q",), layers=(0, 1))) == "".join(
        f"""\
        # layers.{layer}.q_proj.weight
        t1 = tensor('adapter', 'base.layers.{layer}.q_proj.lora_B.weight')
        t2 = tensor('adapter', 'base.layers.{layer}.q_proj.lora_A.weight')
        t3 = torch.ops.aten.mm.default(t1, t2)
        t1 = torch.ops.aten.mul.Tensor(t3, files['config']['lora_alpha'] / files['config']['r'])
        t2 = weights('layers.{layer}.q_proj.weight')
        torch.ops.aten.add_.Tensor(t2, t1)
        made['layers.{layer}.q_proj.weight'] = t2
"""
        for layer in (0, 1)
    )


def test_a_variable_is_not_used_again_while_its_value_is_needed() -> None:
    steps = (*(step("aten.neg.default", v(0), to=n) for n in range(1, 5)), step("aten.cat.default", [v(4), v(1)], to=5))
    program = Program(leaves=(leaf(0, "t.3"),), steps=steps, results={"w": 5, "first": 1})
    assert [line.strip() for line in build_text(program).splitlines()] == [
        "# first, w",
        "t1 = weights('t.3')",
        "t2 = torch.ops.aten.neg.default(t1)",
        "t3 = torch.ops.aten.neg.default(t1)",
        "t3 = torch.ops.aten.neg.default(t1)",
        "t3 = torch.ops.aten.neg.default(t1)",
        "t1 = torch.ops.aten.cat.default([t3, t2])",
        "made['first'] = t2",
        "made['w'] = t1",
    ]
    assert same(module_of(program).build({}, base()), straight(program, {}, base(), lambda *_: None, {}))


CHAIN = ("aten.mm.default", "aten.add.Tensor", "aten.mul_.Tensor", "aten.add_.Tensor", "aten.copy_.default", "aten.t.default",
         "aten.neg.default", "aten.clone.default", "aten.view.default")  # fmt: skip


@st.composite
def programs(draw: st.DrawFn) -> Program:
    """Random chains, laid out in layers, with some steps across layers."""
    layers, depth = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    shape = [(draw(st.sampled_from(CHAIN)), draw(st.integers(0, 9)), draw(st.integers(0, 9))) for _ in range(depth)]
    leaves = [leaf(layer * 2 + place, f"l.{layer}.{word}") for layer in range(layers) for place, word in enumerate("ab")]
    leaves.append(leaf(99, "shared.7"))
    pools = [[layer * 2, layer * 2 + 1, 99] for layer in range(layers)]
    steps, number = [], 100
    order = [(layer, what) for layer in range(layers) for what in shape]
    if draw(st.booleans()):
        order = [(layer, what) for what in shape for layer in range(layers)]
    for layer, (operator, one, other) in order:
        pool = pools[layer] if draw(st.integers(0, 12)) else pools[0]
        first, second = pool[one % len(pool)], pool[other % len(pool)]
        arguments: tuple[Any, ...] = (v(first),)
        if operator.split(".")[1] in ("mm", "add", "mul_", "add_", "copy_"):
            arguments = (v(first), v(second))
        elif "view" in operator:
            operator, arguments = "aten.transpose.int", (v(first), 0, 1)
        if operator.split(".")[1].endswith("_"):
            steps.append(step(operator, *arguments, to=first))
        else:
            steps.append(step(operator, *arguments, to=number))
            pools[layer].append(number)
            number += 1
    results = {f"l.{layer}.a": pool[-1] for layer, pool in enumerate(pools)}
    return Program(leaves=tuple(leaves), steps=tuple(steps), results=results)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(programs())
def test_random_programs_make_the_same_bits_by_the_same_operators(program: Program) -> None:
    runs = []
    for run in (lambda w: straight(program, {}, w, lambda *_: None, {}), lambda w: module_of(program).build({}, w)):
        try:
            with Recording() as mode:
                made = run(base())
        except RuntimeError:  # a tensor that is added to its own transpose
            assume(runs)
            raise
        runs.append((made, [name for name, _ in mode.seen if "randn" not in name]))
    assert same(runs[0][0], runs[1][0])
    assert runs[0][1] == runs[1][1]
    assert source_of(program) == source_of(program)


def test_writes_in_place_keep_their_order() -> None:
    # the second weight sees the first after it was written to, through a view
    steps = (
        step("aten.t.default", v(0), to=10),
        step("aten.add_.Tensor", v(10), v(1), to=10),
        step("aten.add_.Tensor", v(1), v(0), to=1),
    )
    program = Program(leaves=(leaf(0, "l.0.w"), leaf(1, "l.1.w")), steps=steps, results={"l.0.w": 0, "l.1.w": 1})
    text = build_text(program)
    assert text.index(".t.") < text.index("add_.") < text.rindex("add_.")
    assert same(module_of(program).build({}, base()), straight(program, {}, base(), lambda *_: None, {}))

    # neither weight is written to, and a leaf that both read is, through a view
    through = (
        step("aten.neg.default", v(0), to=10),
        step("aten.t.default", v(0), to=11),
        step("aten.mul_.Tensor", v(11), 3.0, to=11),
        step("aten.neg.default", v(0), to=12),
    )
    program = Program(leaves=(leaf(0, "l.0.w"),), steps=through, results={"l.0.w": 10, "l.1.w": 12})
    assert build_text(program).count("weights(") == 1
    assert same(module_of(program).build({}, base()), straight(program, {}, base(), lambda *_: None, {}))

    shared = (step("aten.mm.default", v(2), v(2), to=10), *(step("aten.add_.Tensor", v(n), v(10), to=n) for n in (0, 1)))
    program = Program(
        leaves=(leaf(0, "l.0.w"), leaf(1, "l.1.w"), leaf(2, "l.2.w")), steps=shared, results={"l.0.w": 0, "l.1.w": 1}
    )
    assert build_text(program).count("aten.mm.default(") == 1
    assert same(module_of(program).build({}, base()), straight(program, {}, base(), lambda *_: None, {}))


def test_it_runs_alone_and_says_what_it_made_or_why_not(tmp_path: Path) -> None:
    program = lora()
    event = adapter(tmp_path / "a", program, 3)
    weights = base()
    save_file({item.name: weights(item.name) for item in program.leaves}, tmp_path / "weights.safetensors")
    script = tmp_path / "dynamic_init.py"
    script.write_text(source_of(program), encoding="utf-8")
    done = subprocess.run([sys.executable, str(script), json.dumps(event)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    wanted = straight(program, event, weights, *on_disk(event))
    assert done.stdout.splitlines() == [f"{name} float32 [4, 4] {digest(wanted[name])}" for name in sorted(wanted)]
    done = subprocess.run([sys.executable, str(script), "{}"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, 'init makes its state: event["lang"] is not the traced one\n')


def test_it_asks_for_nothing_but_the_standard_library_until_it_builds() -> None:
    check = "import sys; exec(compile(sys.stdin.read(), 'd', 'exec'), {'__name__': 'd'}); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", check], input=source_of(lora()), text=True, check=True)


def test_the_text_depends_on_nothing_but_the_program_and_is_plain_python() -> None:
    program = lora()
    text = source_of(program)
    assert text == source_of(msgspec.structs.replace(program, results=dict(reversed(program.results.items()))))
    dependencies = '["torch==2.13.0", "safetensors==0.8.0"]'
    assert text.startswith(f'# /// script\n# requires-python = ">=3.11"\n# dependencies = {dependencies}\n# ///\n')
    assert "eval(" not in text and "exec(" not in text
    ruff = str(Path(sys.executable).with_name("ruff"))
    command = [ruff, "check", "--select", "F,E,W", "--ignore", "E501", "--isolated", "-"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
