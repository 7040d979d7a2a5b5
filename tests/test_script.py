"""A dynamic program as a script: it runs the program's very operators, and reads like code."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from script_cases import (
    CPU,
    SCALE,
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

from tidalctl.artifacts.program import GENERATOR, Program, ProgramFile, ProgramRead, ProgramStep


def test_a_merge_by_hand_is_right_for_ranks_that_no_trace_saw(tmp_path: Path) -> None:
    program = lora()
    module = module_of(program)
    for rank in (1, 2, 5, 8):
        event = adapter(tmp_path / str(rank), program, rank)
        assert module.refusal(event) == ""
        assert module.serves(event)
        assert module.files(event) == [event["adapter"] + "/a.safetensors", event["adapter"] + "/c.json"]
        assert same(module.build(event, base(program)), straight(program, event, base(program), *on_disk(event)))


def test_layers_are_rolled_into_loops_and_other_names_into_tables() -> None:
    text = build_text(lora())
    assert text.count("for i in range(3):") == 2 and text.count("torch.mm(") == 2
    assert 'q_proj_weight = weights(f"layers.{i}.q_proj.weight")' in text
    assert '# 3 weights: "layers.{i}.q_proj.weight" for i in range(3)' in text
    assert f"delta * ({SCALE})" in text
    assert "for i in (0, 2, 5):" in build_text(lora(layers=(5, 0, 2)))
    assert "for i in range(1, 9, 2):" in build_text(lora(layers=(1, 3, 5, 7)))
    table = build_text(lora(modules=("q", "k", "v"), layers=(0,)))
    assert "for key, key_2, name in (" in table and table.count("torch.mm(") == 1


@pytest.mark.parametrize(("modules", "layers"), [(("q", "k", "v"), (0,)), (("a2", "a1"), (9, 4, 0)), (("{i}", "b"), (0, 1))])
def test_rolled_up_loops_make_the_same_bits(tmp_path: Path, modules: tuple[str, ...], layers: tuple[int, ...]) -> None:
    program = lora(modules, layers)
    event = adapter(tmp_path / "a", program)
    assert same(module_of(program).build(event, base(program)), straight(program, event, base(program), *on_disk(event)))


CHAIN = ("aten.mm.default", "aten.add.Tensor", "aten.mul_.Tensor", "aten.add_.Tensor", "aten.copy_.default", "aten.t.default",
         "aten.neg.default", "aten.uniform_.default", "aten.clone.default", "aten.view.default")  # fmt: skip


@st.composite
def programs(draw: st.DrawFn) -> Program:
    """Random chains, laid out in layers so that much of it can be rolled up, with some steps across layers."""
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
    return Program(leaves=tuple(leaves), steps=tuple(steps), results=results, generator=draw(st.booleans()))


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(programs())
def test_random_programs_make_the_same_bits_and_draw_in_the_same_order(program: Program) -> None:
    runs = []
    for run in (lambda w: straight(program, {}, w, lambda *_: None, {}), lambda w: module_of(program).build({}, w)):
        torch.manual_seed(1 if runs and program.generator else 2)  # where a program sets the generator, it may stand anywhere
        try:
            with Recording() as mode:
                made = run(base(program))
        except RuntimeError:  # a tensor that is added to its own transpose
            assume(runs)
            raise
        own = sorted(name for name, _ in mode.seen if "generator" not in name and "randn" not in name)
        runs.append((made, own, torch.rand(1).item()))
    assert same(runs[0][0], runs[1][0])
    assert runs[0][2] == runs[1][2]
    assert runs[0][1] == runs[1][1]
    assert source_of(program) == source_of(program)


def test_writes_in_place_keep_their_order_and_what_is_shared_is_not_rolled_up() -> None:
    # the second weight sees the first after it was written to, through a view
    steps = (
        step("aten.t.default", v(0), to=10),
        step("aten.add_.Tensor", v(10), v(1), to=10),
        step("aten.add_.Tensor", v(1), v(0), to=1),
    )
    program = Program(leaves=(leaf(0, "l.0.w"), leaf(1, "l.1.w")), steps=steps, results={"l.0.w": 0, "l.1.w": 1})
    text = build_text(program)
    assert "for i" not in text and text.index(".t()") < text.index("add_(") < text.rindex("add_(")
    assert same(module_of(program).build({}, base(program)), straight(program, {}, base(program), lambda *_: None, {}))

    # neither weight is written to, and a leaf that both read is, through a view
    through = (
        step("aten.neg.default", v(0), to=10),
        step("aten.t.default", v(0), to=11),
        step("aten.mul_.Tensor", v(11), 3.0, to=11),
        step("aten.neg.default", v(0), to=12),
    )
    program = Program(leaves=(leaf(0, "l.0.w"),), steps=through, results={"l.0.w": 10, "l.1.w": 12})
    assert build_text(program).count("weights(") == 1
    assert same(module_of(program).build({}, base(program)), straight(program, {}, base(program), lambda *_: None, {}))

    shared = (step("aten.mm.default", v(2), v(2), to=10), *(step("aten.add_.Tensor", v(n), v(10), to=n) for n in (0, 1)))
    program = Program(
        leaves=(leaf(0, "l.0.w"), leaf(1, "l.1.w"), leaf(2, "l.2.w")), steps=shared, results={"l.0.w": 0, "l.1.w": 1}
    )
    assert build_text(program).count("torch.mm(") == 1
    assert "for i" not in build_text(program)
    assert same(module_of(program).build({}, base(program)), straight(program, {}, base(program), lambda *_: None, {}))


def test_two_ways_to_one_storage_are_refused_where_a_write_could_show_in_both() -> None:
    file = ProgramFile(name="a", path=("a",), kind="safetensors", keys=("k",))
    reads = tuple(ProgramRead(value=n, file="a", key="k", dtype="float32", shape=(4, 4)) for n in (0, 1))
    summed = step("aten.add.Tensor", v(0), v(1), to=2)
    assert source_of(Program(files=(file,), reads=reads, steps=(summed,), results={"w": 2}))
    written = (step("aten.neg.default", v(0), to=2), step("aten.add_.Tensor", v(1), v(2), to=1))
    for steps, results in (((), {"w": 0, "x": 1}), (written, {"w": 2, "x": 1})):
        with pytest.raises(ValueError, match="read twice"):
            source_of(Program(files=(file,), reads=reads, steps=steps, results=results))
    leaves = (leaf(0, "w"), leaf(1, "w"))
    assert source_of(Program(leaves=leaves, steps=(summed,), results={"w": 2}))
    for steps in ((step("aten.add_.Tensor", v(0), v(1), to=0),), (step("aten.neg.default", v(1), to=2),)):
        with pytest.raises(ValueError, match="two ways"):
            source_of(Program(leaves=leaves, steps=steps, results={"w": 0}))


def drawn(first: int, size: int) -> tuple[ProgramStep, ...]:
    return (
        step("aten.empty.memory_format", [size, 4], to=first, **CPU),
        step("aten.uniform_.default", v(first), -0.5, 0.5, to=first),
    )


@pytest.mark.parametrize("generator", [True, False])
def test_draws_that_belong_to_no_weight_come_first_and_are_rolled_up(generator: bool) -> None:
    steps = tuple(s for n in range(6) for s in drawn(-1 - n, 2 + n % 2))
    program = Program(
        leaves=(leaf(0, "w"),), steps=(*steps, step("aten.add_.Tensor", v(0), 1, to=0)), results={"w": 0}, generator=generator
    )
    text = build_text(program)
    assert "# the random generator, left as init leaves it" in text
    assert text.count("for _ in range(3):") == 1 and text.count("uniform_(") == 2
    states = []
    for run in (lambda w: module_of(program).build({}, w), lambda w: straight(program, {}, w, lambda *_: None, {})):
        torch.manual_seed(3)
        run(base(program))
        states.append(torch.get_rng_state())
    assert torch.equal(*states)


@pytest.mark.parametrize("generator", [True, False])
def test_draws_that_make_weights_keep_their_order_and_neighbours_are_rolled_up(generator: bool) -> None:
    steps = tuple(s for n in range(6) for s in drawn(n, 4 if n % 2 else 3))
    results = {f"l.{n // 2}.{'b' if n % 2 else 'a'}": n for n in range(6)}
    program = Program(steps=steps, results=results, generator=generator)
    text = build_text(program)
    assert text.count("for i in range(3):") == 1 and text.count("uniform_(") == 2
    backwards = Program(steps=(*steps[0::2], *reversed(steps[1::2])), results=results, generator=generator)
    assert "for i in range(2, -1, -1):" in build_text(backwards)
    alternating = Program(steps=(*steps, *steps[1::2]), results=results, generator=generator)
    assert "for " not in build_text(alternating)
    for one in (program, backwards, alternating):
        torch.manual_seed(3)
        made = module_of(one).build({}, base(one))
        torch.manual_seed(3)
        assert same(made, straight(one, {}, base(one), lambda *_: None, {}))


WHEREVER = "from wherever torch's generator stands"


@pytest.mark.parametrize("generator", [True, False])
def test_draws_start_from_the_state_in_the_template_or_from_wherever_the_generator_stands(generator: bool) -> None:
    program = Program(steps=drawn(0, 3), results={"w": 0}, generator=generator)
    module, runs = module_of(program), []
    for seed in (1, 2):
        for run in (module.build, lambda event, weights: straight(program, event, weights, lambda *_: None, {})):
            torch.manual_seed(seed)
            made = run({}, base(program))["w"]
            runs.append((digest(made), digest(torch.get_rng_state())))
    assert runs[0] == runs[1] and runs[2] == runs[3]
    assert (runs[0] == runs[2]) is generator
    assert (WHEREVER in source_of(program)) is not generator
    assert WHEREVER not in source_of(lora())


def test_the_generators_state_is_listed_as_a_tensor_of_the_template_and_is_not_written_to() -> None:
    program = Program(steps=drawn(0, 3), results={"w": 0}, generator=True)
    module, state = module_of(program), torch.Generator().manual_seed(5).get_state()
    assert module.leaves() == {GENERATOR: ("uint8", tuple(state.shape), (1,), 0)}
    before, asked = state.clone(), []

    def weights(name: str) -> torch.Tensor:
        asked.append(name)
        return state

    module.build({}, weights)
    assert asked == [GENERATOR]
    assert torch.equal(state, before) and not torch.equal(state, torch.get_rng_state())
    assert list(module_of(msgspec.structs.replace(program, generator=False)).leaves()) == []


def test_it_runs_alone_and_says_what_it_made_or_why_not(tmp_path: Path) -> None:
    plain = lora()
    results = {**plain.results, "fresh": 900}
    program = msgspec.structs.replace(plain, steps=(*plain.steps, *drawn(900, 4)), results=results, generator=True)
    event = adapter(tmp_path / "a", program, 3)
    weights = base(program)
    save_file(
        {name: weights(name) for name in (GENERATOR, *(item.name for item in program.leaves))}, tmp_path / "weights.safetensors"
    )
    script = tmp_path / "dynamic_init.py"
    script.write_text(source_of(program), encoding="utf-8")
    done = subprocess.run([sys.executable, str(script), json.dumps(event)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    wanted = straight(program, event, weights, *on_disk(event))
    assert done.stdout.splitlines() == [f"{name} float32 [4, 4] {digest(wanted[name])}" for name in sorted(wanted)]
    done = subprocess.run([sys.executable, str(script), "{}"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, 'event["lang"] is not the traced one\n')


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
    for command in (("format", "--diff"), ("check", "--select", "F,E,W")):
        done = subprocess.run(
            [ruff, *command, "--isolated", "--line-length", "128", "-"], input=text, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout
