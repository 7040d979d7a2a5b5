"""A script refuses what its program does not serve, with the reason, before any weight is asked for."""

import json
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors
import torch
from safetensors.torch import save_file
from script_cases import SCALE, adapter, digest, json_rest, leaf, lora, module_of, step, straight, v

from tidalctl.artifacts.bundle.manifest import Guard
from tidalctl.compiler.dynamic.program import Program, ProgramFile, ProgramRead
from tidalctl.compiler.script.support import content_digest
from tidalctl.compiler.script.writer import conditions_source
from tidalctl.function.event_probe import digest_value

Spoil = Callable[[dict[str, Any], Path], Any]


def saved(**changed: Any) -> Spoil:
    """Writes the adapter again, with keys added, or taken away where they are None."""

    def spoil(event: dict[str, Any], folder: Path) -> None:
        opened = safetensors.safe_open(folder / "a.safetensors", framework="pt")
        tensors = {key: opened.get_tensor(key).clone() for key in opened.keys()}  # noqa: SIM118
        tensors |= {key.replace("__", "."): tensor for key, tensor in changed.items()}
        del opened
        save_file({key: tensor for key, tensor in tensors.items() if tensor is not None}, folder / "a.safetensors")

    return spoil


def config(**changed: Any) -> Spoil:
    return lambda event, folder: (folder / "c.json").write_text(
        json.dumps({"r": 2, "lora_alpha": 3, "peft_type": "LORA"} | changed)
    )


def put(**fields: Any) -> Spoil:
    return lambda event, folder: event.update(fields)


A = "base__layers__0__q_proj__lora_A__weight"
REFUSALS: list[tuple[Spoil, str]] = [
    (put(lang="de"), 'event["lang"] is not the traced one'),
    (put(adapter=3), 'event["adapter"] is not a str'),
    (lambda event, folder: event.pop("adapter"), 'event["adapter"] is missing'),
    (put(adapter="/no\0where"), "there is no file /no"),
    (put(adapter="/nowhere"), "there is no file /nowhere/a.safetensors"),
    (lambda event, folder: (folder / "c.json").unlink(), "there is no file"),
    (lambda event, folder: (folder / "c.json").write_text("{"), "can't be checked: JSONDecodeError"),
    (lambda event, folder: (folder / "c.json").write_text("[]"), "can't be checked"),
    (lambda event, folder: (folder / "c.json").write_text("[" * 100_000), "can't be checked"),
    (config(r=True), "is not a number"),
    (config(peft_type="OTHER"), "in more than lora_alpha, r"),
    (config(more=1), "in more than lora_alpha, r"),
    (
        lambda event, folder: (folder / "c.json").write_text('{"lora_alpha": 3, "r": 2, "peft_type": "LORA"}'),
        "in more than lora_alpha, r",
    ),
    (saved(**{A: None}), "lacks base.layers.0.q_proj.lora_A.weight"),
    (saved(other=torch.ones(1)), "also holds other"),
    (saved(**{A: torch.ones(2, 4).half()}), "is F16, not F32"),
    (saved(**{A: torch.ones(2, 3)}), "has the shape (2, 3), not ((1, 2, 3, 5, 8), 4)"),
    (saved(**{A: torch.ones(4, 4)}), "has the shape (4, 4)"),
    (saved(**{A: torch.ones(4)}), "has the shape (4,)"),
    (saved(**{A: torch.ones(3, 4)}), "numbers that were equal in the traces are not: 2, 3, 2"),
    (config(r=2.0), "numbers that were equal in the traces are not: 2.0, 2, 2"),
    (lambda event, folder: (folder / "a.safetensors").write_bytes(b"\xff" * 40), "its header is longer than it"),
    (lambda event, folder: (folder / "a.safetensors").write_bytes((folder / "a.safetensors").read_bytes()[:-4]), "cut off"),
]


@pytest.mark.parametrize(("spoil", "reason"), REFUSALS, ids=[reason for _, reason in REFUSALS])
def test_what_the_program_does_not_serve_is_refused_with_the_reason(tmp_path: Path, spoil: Spoil, reason: str) -> None:
    program = lora(layers=(0,))
    event = adapter(tmp_path / "a", program)
    module = module_of(program)
    assert module.refusal(event) is None
    spoil(event, tmp_path / "a")
    assert reason in module.refusal(event)


def test_numbers_that_can_not_be_computed_are_refused(tmp_path: Path) -> None:
    program = lora(layers=(0,), agreements=((SCALE,),))
    module = module_of(program)
    assert "ZeroDivisionError" in module.refusal(adapter(tmp_path / "zero", program, r=0))
    assert "OverflowError" in module.refusal(adapter(tmp_path / "big", program, lora_alpha=10**400))
    for event in (None, [], "text", {"adapter": [1]}, {"adapter": {"a": 1}}):
        assert module.refusal(event)


def scaled(kind: str) -> Program:
    """Whole numbers times the one in a file: what they become depends on its type."""
    rest = json_rest({"s": 0, "peft_type": "LORA"}, "s")
    return Program(
        files=(ProgramFile(name="config", path=(("event", "path"),), kind="json", free={"s": kind}, rest=(rest,)),),
        leaves=(leaf(0, "w", (4,), "int64"),),
        steps=(step("aten.mul.Tensor", v(0), {"expression": "files['config']['s']"}, to=1),),
        results={"w": 1},
        event_varied={"path": "str"},
    )


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        ("int", (3, 0, -7), (3.0, 1e300, True, "3", None, [3])),
        ("float", (2.5, 2.0, -0.0, 1e-300), (2, 0, False, "2.5", None, [2.5])),
        ("number", (3, 2.5, 2.0), (True, "3", None, [3])),
    ],
)
def test_a_free_number_may_be_any_of_its_type_and_none_of_another(tmp_path: Path, kind: str, good: Any, bad: Any) -> None:
    program, path = scaled(kind), tmp_path / "c.json"
    module, event = module_of(program), {"path": str(path)}
    for number in good:
        path.write_text(json.dumps({"s": number, "peft_type": "LORA"}))
        assert module.refusal(event) is None
        made = module.build(event, lambda _: torch.arange(4))["w"]
        wanted = straight(program, event, lambda _: torch.arange(4), lambda *_: None, {"config": {"s": number}})["w"]
        assert made.dtype == wanted.dtype == (torch.int64 if type(number) is int else torch.float32)
        assert digest(made) == digest(wanted)
    for body in (*({"s": value} for value in bad), {}):
        path.write_text(json.dumps({**body, "peft_type": "LORA"}))
        assert module.refusal(event) == f'"s" in {path} is not a number of type {kind}'


def test_a_torch_file_is_checked_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    torch.save({"state": {"layers.0.w": torch.ones(4, 4)}}, path)
    extra = ProgramFile(name="extra", path=(("event", "path"),), kind="torch", rest=(content_digest(path, "torch"),))
    program = Program(
        files=(extra,),
        reads=(ProgramRead(value=1, file="extra", key="state.layers.0.w", dtype="float32", shape=(4, 4)),),
        leaves=(leaf(0, "w"),),
        steps=(step("aten.mm.default", v(0), v(1), to=2),),
        results={"w": 2},
        event_varied={"path": "str"},
    )
    module, event = module_of(program), {"path": str(path)}
    torch.save({"state": {"layers.0.w": torch.full((4, 4), 2.0)}}, path)
    assert module.refusal(event) is None
    assert torch.equal(module.build(event, lambda name: torch.eye(4))["w"], torch.full((4, 4), 2.0))
    for stored in ({}, {"layers.0.w": torch.ones(4, 4).half()}, {"layers": [{"w": torch.ones(2, 4)}]}):
        torch.save({"state": stored}, path)
        assert "besides its tensors is none of the traced ones" in module.refusal(event)
    torch.save({"state": {"layers.0.w": torch.ones(4, 4)}}, path, _use_new_zipfile_serialization=False)
    assert "can't be checked" in module.refusal(event)
    path.unlink()
    assert "there is no file" in module.refusal(event)


def dynamic_init(strategy: str, guard: Guard) -> Any:
    module = types.ModuleType("d")
    exec(compile(conditions_source("app:handler", "load", strategy, guard), "d", "exec"), module.__dict__)
    return module


@pytest.mark.parametrize("strategy", ["snapshot", "replay"])
def test_the_guard_of_a_snapshot_names_the_fields_that_differ(strategy: str) -> None:
    guard = Guard(static=False, event_reads={"lang": digest_value(["en"]), "size": digest_value([3])})
    module = dynamic_init(strategy, guard)
    assert module.refusal({"lang": "en", "size": 3}) is None
    assert module.refusal({"lang": "de", "size": 3}) == 'event["lang"] is not the traced one'
    assert module.refusal({"lang": "de"}) == 'event["lang"], event["size"] are not the traced ones'
    assert module.refusal([]) == "the event is not a JSON object"


def test_a_bundle_of_a_static_init_serves_every_event_one_that_saw_the_whole_event_that_event_and_one_without_a_state_none() -> (
    None
):
    static = dynamic_init("snapshot", Guard(static=True))
    whole = dynamic_init("snapshot", Guard(static=False, event_whole=digest_value({"a": 1})))
    eager = dynamic_init("eager", Guard(static=True))
    for event in ({"a": 1}, {}, [], "text", None):
        assert static.refusal(event) is None
        assert (whole.refusal(event) is None) is (event == {"a": 1})
        assert eager.refusal(event) == "there is no snapshot: load runs for every event"


def test_names_can_not_become_code_where_there_is_no_program() -> None:
    name = '"\nraise SystemExit(9)\n#'
    for strategy in ("snapshot", "replay", "eager"):
        text = conditions_source(name, name, strategy, Guard(static=False, event_reads={name: name}))
        exec(compile(text, "d", "exec"), {"__name__": "d"})
