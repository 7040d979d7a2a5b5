"""A script refuses what its program does not serve, with the reason, before any weight is asked for."""

import hashlib
import json
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from script_cases import adapter, digest, leaf, lora, module_of, step, straight, v

from tidalctl.artifacts.manifest import Guard
from tidalctl.artifacts.program import Agreement, Program, ProgramFile, ProgramRead
from tidalctl.compiler.dynamic import dynamic_init_source
from tidalctl.compiler.request import _rest_digest
from tidalctl.eventprobe import digest_value

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
    (lambda event, folder: event.pop("lang"), 'event["lang"] is not the traced one'),
    (put(mode="y"), 'event["mode"] is none of the traced ones'),
    (put(adapter=3), 'event["adapter"] is not a str'),
    (put(adapter=True), 'event["adapter"] is not a str'),
    (lambda event, folder: event.pop("adapter"), 'event["adapter"] is missing'),
    (put(adapter="x"), "another form than the traced ones: plain, not absolute, in folders"),
    (put(adapter="/x/../y/"), "another form than the traced ones: absolute, in folders, uneven, not absolute"),
    (put(adapter="/no\0where"), "there is no file /no"),
    (put(adapter="/nowhere"), "there is no file /nowhere/a.safetensors"),
    (lambda event, folder: (folder / "c.json").unlink(), "there is no file"),
    (lambda event, folder: (folder / "c.json").write_text("{"), "is not JSON"),
    (lambda event, folder: (folder / "c.json").write_text("[]"), "is not a JSON object"),
    (lambda event, folder: (folder / "c.json").write_text("[" * 100_000), "can't be checked"),
    (config(r=True), '"r" in '),
    (config(r="2"), "is not a number"),
    (config(r=None), "is not a number"),
    (config(peft_type="OTHER"), "in more than lora_alpha, r"),
    (config(more=1), "in more than lora_alpha, r"),
    (lambda event, folder: (folder / "more.py").touch(), "lie other files"),
    (saved(**{A: None}), "lacks base.layers.0.q_proj.lora_A.weight"),
    (saved(other=torch.ones(1)), "also holds other"),
    (saved(**{A: torch.ones(2, 4).half()}), "is F16, not F32"),
    (saved(**{A: torch.ones(2, 3)}), "has the shape (2, 3), not (None, 4)"),
    (saved(**{A: torch.ones(0, 4)}), "has the shape (0, 4)"),
    (saved(**{A: torch.ones(4)}), "has the shape (4,)"),
    (saved(**{A: torch.ones(3, 4)}), "numbers that were equal in the traces are not: 2, 3, 2"),
    (config(r=2.0), "numbers that were equal in the traces are not: 2.0, 2, 2"),
    (lambda event, folder: (folder / "a.safetensors").write_bytes(b"\xff" * 40), "is not a safetensors file"),
    (lambda event, folder: (folder / "a.safetensors").write_bytes(b""), "is not a safetensors file"),
    (lambda event, folder: (folder / "a.safetensors").write_bytes((folder / "a.safetensors").read_bytes()[:-4]), "cut off"),
]


@pytest.mark.parametrize(("spoil", "reason"), REFUSALS, ids=[reason for _, reason in REFUSALS])
def test_what_the_program_does_not_serve_is_refused_with_the_reason(tmp_path: Path, spoil: Spoil, reason: str) -> None:
    program = lora(layers=(0,))
    event = adapter(tmp_path / "a", program)
    module = module_of(program)
    assert module.refusal(event) == ""
    spoil(event, tmp_path / "a")
    assert reason in module.refusal(event)
    assert not module.serves(event)


def test_numbers_that_can_not_be_computed_are_refused(tmp_path: Path) -> None:
    program = lora(layers=(0,), agreements=())
    module = module_of(program)
    assert "ZeroDivisionError" in module.refusal(adapter(tmp_path / "zero", program, r=0))
    assert "OverflowError" in module.refusal(adapter(tmp_path / "big", program, lora_alpha=10**400))
    for event in (None, [], "text", {"adapter": [1]}, {"adapter": {"a": 1}}):
        assert module.refusal(event)


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        ("int", 3, True),
        ("int", 3, 3.0),
        ("float", 3.5, 3),
        ("bool", True, 1),
        ("number", 1.5, False),
        ("list", [1], {}),
        ("dict", {}, []),
    ],
)
def test_json_types_are_told_apart(kind: str, good: Any, bad: Any) -> None:
    module = module_of(Program(leaves=(leaf(0, "w"),), results={"w": 0}, event_free={"x": kind}))
    assert module.serves({"x": good})
    assert module.refusal({"x": bad}) == f'event["x"] is not a {kind}'


def scaled(kind: str) -> Program:
    """Whole numbers times the one in a file: what they become depends on its type."""
    rest = hashlib.sha256(b'{"peft_type":"LORA"}').hexdigest()
    return Program(
        files=(ProgramFile(name="config", path=(("event", "path"),), kind="json", free={"s": kind}, rest=(rest,)),),
        leaves=(leaf(0, "w", (4,), "int64"),),
        steps=(step("aten.mul.Tensor", v(0), {"expression": 'config["s"]'}, to=1),),
        results={"w": 1},
        event_free={"path": "str"},
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
        assert module.refusal(event) == ""
        made = module.build(event, lambda _: torch.arange(4))["w"]
        wanted = straight(program, event, lambda _: torch.arange(4), lambda *_: None, {"config": {"s": number}})["w"]
        assert made.dtype == wanted.dtype == (torch.int64 if type(number) is int else torch.float32)
        assert digest(made) == digest(wanted)
    for body in (*({"s": value} for value in bad), {}):
        path.write_text(json.dumps({**body, "peft_type": "LORA"}))
        assert module.refusal(event) == f'"s" in {path} is not a number of type {kind}'


TEXTS = st.lists(st.one_of(st.text(max_size=3), st.sampled_from(["q_proj", "k_proj", "v_proj"])), max_size=5)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_a_set_in_a_file_may_come_in_any_order_and_all_else_must_be_as_traced(tmp_path: Path, data: st.DataObject) -> None:
    traced = {"targets": data.draw(TEXTS), "layers": data.draw(TEXTS), "peft_type": "LORA"}
    rest = _rest_digest({**traced, "r": 2}, {"r": "int"}, ("targets",))
    file = ProgramFile(
        name="config", path=("", ("event", "path")), kind="json", free={"r": "int"}, unordered=("targets",), rest=(rest,)
    )
    path = tmp_path / "c.json"
    module = module_of(Program(files=(file,), leaves=(leaf(0, "w"),), results={"w": 0}, event_free={"path": "str"}))

    def serves(**changed: Any) -> bool:
        path.write_text(json.dumps({**traced, "r": 5, **changed}))
        return bool(module.serves({"path": str(path)}))

    assert serves(targets=data.draw(st.permutations(traced["targets"])))
    other = data.draw(TEXTS)
    assert serves(targets=other) is (sorted(other) == sorted(traced["targets"]))
    layers = data.draw(st.one_of(TEXTS, st.permutations(traced["layers"])))
    assert serves(layers=layers) is (layers == traced["layers"])
    assert (
        not serves(targets="".join(traced["targets"])) and not serves(targets=None) and not serves(targets=[traced["targets"]])
    )


def test_a_torch_file_is_checked_before_any_weight_is_asked_for(tmp_path: Path) -> None:
    read = ProgramRead(value=1, file="extra", key="state.layers.0.w", dtype="float32", shape=(None, 4))
    program = Program(
        files=(ProgramFile(name="extra", path=(("event", "path"),), kind="torch"),),
        reads=(read,),
        leaves=(leaf(0, "w"),),
        steps=(step("aten.mm.default", v(0), v(1), to=2), step("aten.mul.Tensor", v(2), {"expression": 'event["s"]'}, to=3)),
        results={"w": 3},
        event_free={"path": "str", "s": "int"},
        agreements=(Agreement(expressions=("shape(1, 0)", 'event["s"]')),),
    )
    module = module_of(program)
    path = tmp_path / "x.pt"
    event = {"path": str(path), "s": 4}
    assert "there is no file" in module.refusal(event)
    asked: list[str] = []

    def weights(name: str) -> torch.Tensor:
        asked.append(name)
        return torch.eye(4)

    for stored in (
        {"state": {}},
        {"state": {"layers.0.w": torch.ones(4, 4).half()}},
        {"state": {"layers": [{"w": torch.ones(2, 4)}]}},
    ):
        torch.save(stored, path)
        assert module.refusal(event) == ""
        with pytest.raises(ValueError):
            module.build(event, weights)
    assert asked == []
    torch.save({"state": {"layers.0.w": torch.ones(4, 4)}}, path)
    assert torch.equal(module.build(event, weights)["w"], torch.full((4, 4), 4.0))


def test_the_guard_of_a_snapshot_names_the_fields_that_differ() -> None:
    guard = Guard(static=False, event_reads={"lang": digest_value(["en"]), "size": digest_value([3])})
    for strategy in ("snapshot", "replay"):
        module = types.ModuleType("d")
        text = dynamic_init_source("app:handler", "load", strategy, guard)
        exec(compile(text, "d", "exec"), module.__dict__)
        assert module.refusal({"lang": "en", "size": 3}) == "" and module.serves({"lang": "en", "size": 3})
        assert module.refusal({"lang": "de", "size": 3}) == 'event["lang"] is not the traced one'
        assert module.refusal({"lang": "de"}) == 'event["lang"], event["size"] are not the traced ones'
        assert not module.serves({})
    assert "load runs for every event" in text
