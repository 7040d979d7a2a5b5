"""What the tests of scripts share: programs by hand, adapters on disk, and a plain run of a program's steps to compare with."""

import hashlib
import json
import math
import tempfile
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import save_file
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from tidalctl.compiler.dynamic.program import Program, ProgramFile, ProgramLeaf, ProgramRead, ProgramStep
from tidalctl.compiler.script.support import content_digest
from tidalctl.compiler.script.writer import program_source
from tidalctl.function.event_probe import digest_value

REQUIREMENTS = ("torch==2.13.0", "safetensors==0.8.0")
SCALE = "files['config']['lora_alpha'] / files['config']['r']"
RANKS = (1, 2, 3, 5, 8)
CPU = {"device": {"device": "cpu"}, "pin_memory": False}


def v(number: int) -> dict[str, int]:
    return {"value": number}


def step(operator: str, *arguments: Any, to: tuple[int, ...] | int = (), **keywords: Any) -> ProgramStep:
    return ProgramStep(operator=operator, arguments=arguments, keywords=keywords, outputs=(to,) if isinstance(to, int) else to)


def leaf(value: int, name: str, shape: tuple[int, ...] = (4, 4), dtype: str = "float32") -> ProgramLeaf:
    stride = tuple(math.prod(shape[place + 1 :]) for place in range(len(shape)))
    return ProgramLeaf(value=value, name=name, dtype=dtype, shape=shape, stride=stride)


def source_of(program: Program) -> str:
    return program_source("app:handler", "app:load", program, REQUIREMENTS)


def module_of(program: Program) -> Any:
    module = types.ModuleType("dynamic_init")
    exec(compile(source_of(program), "dynamic_init.py", "exec"), module.__dict__)
    return module


def build_text(program: Program) -> str:
    """The operators of build() alone."""
    return source_of(program).partition("    with torch.no_grad():\n")[2].partition("    return made")[0]


class Recording(TorchDispatchMode):
    """Operators and arguments; tensors by what they hold."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Any] = []

    def __torch_dispatch__(self, func: Any, kinds: Any, args: Any = (), kwargs: Any = None) -> Any:
        def say(item: Any) -> Any:
            known = isinstance(item, torch.Tensor)
            return ("tensor", item.dtype, tuple(item.shape), item.stride(), digest(item)) if known else (type(item), repr(item))

        random = "empty" in str(func) or torch.Tag.nondeterministic_seeded in func.tags
        self.seen.append((str(func), None if random else tree_map(say, (args, kwargs or {}))))
        return func(*args, **(kwargs or {}))


def digest(tensor: torch.Tensor) -> str:
    with torch.utils._python_dispatch._disable_current_modes():
        flat = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
        return hashlib.sha256(bytes(flat.tolist())).hexdigest()


def straight(
    program: Program, event: Any, weights: Any, read: Callable[[str, str], Any], names: Any
) -> dict[str, torch.Tensor]:
    """The steps one after the other, as the program has them."""
    made = {item.value: weights(item.name) for item in program.leaves}
    made |= {item.value: read(item.file, item.key) for item in program.reads}

    def argument(item: Any) -> Any:
        if isinstance(item, list | tuple):
            return [argument(part) for part in item]
        if not isinstance(item, dict):
            return item
        ((kind, what),) = item.items()
        if kind == "value":
            return made[what]
        if kind == "expression":
            return eval(what, {"event": event, "math": math, "files": names})
        known = {"device": torch.device, "float": float, "complex": lambda pair: complex(*pair)}
        return known[kind](what) if kind in known else getattr(torch, what)

    with torch.no_grad():
        for done in program.steps:
            operator: Any = torch.ops
            for part in done.operator.split("."):
                operator = getattr(operator, part)
            out = operator(*map(argument, done.arguments), **{key: argument(item) for key, item in done.keywords.items()})
            if done.outputs:
                made.update(zip(done.outputs, tree_leaves(out), strict=True))
    return {name: made[value] for name, value in program.results.items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    assert one.keys() == other.keys()
    return all((one[n].dtype, one[n].shape, digest(one[n])) == (other[n].dtype, other[n].shape, digest(other[n])) for n in one)


def json_rest(mapping: dict[str, Any], *free: str) -> str:
    """The digest of a JSON file that holds the mapping."""
    with tempfile.NamedTemporaryFile("w") as file:
        json.dump(mapping, file)
        file.flush()
        return content_digest(file.name, "json", free)


def tensors_rest(keys: list[str]) -> str:
    """The digest of a safetensors file with these keys."""
    with tempfile.NamedTemporaryFile() as file:
        save_file({key: torch.ones(1) for key in keys}, file.name)
        return content_digest(file.name, "safetensors")


def lora(modules: tuple[str, ...] = ("q", "v"), layers: tuple[int, ...] = (0, 1, 2), **fields: Any) -> Program:
    """W += (B @ A) * scale, for each module of each layer, as traces of several ranks give it."""
    reads, leaves, steps, results = [], [], [], {}
    number = 0
    for layer in layers:
        for name in modules:
            a, b, w, delta, scaled = range(number, number := number + 5)
            key, weight = f"base.layers.{layer}.{name}_proj", f"layers.{layer}.{name}_proj.weight"
            reads.append(ProgramRead(value=a, file="adapter", key=f"{key}.lora_A.weight", dtype="float32", shape=(RANKS, 4)))
            reads.append(ProgramRead(value=b, file="adapter", key=f"{key}.lora_B.weight", dtype="float32", shape=(4, RANKS)))
            leaves.append(leaf(w, weight))
            steps.append(step("aten.mm.default", v(b), v(a), to=delta))
            steps.append(step("aten.mul.Tensor", v(delta), {"expression": SCALE}, to=scaled))
            steps.append(step("aten.add_.Tensor", v(w), v(scaled), to=w))
            results[weight] = w
    rest = json_rest({"r": 0, "lora_alpha": 0, "peft_type": "LORA"}, "lora_alpha", "r")
    folder, keys = ("event", "adapter"), sorted(read.key for read in reads)
    ranks = (f"files['adapter'][{read.key!r}].shape[{place}]" for place, read in enumerate(reads[:2]))
    given: dict[str, Any] = {
        "files": (
            ProgramFile(
                name="adapter",
                path=(folder, "/a.safetensors"),
                kind="safetensors",
                keys=tuple(keys),
                rest=(tensors_rest(keys),),
            ),
            ProgramFile(
                name="config",
                path=(folder, "/c.json"),
                kind="json",
                free={"lora_alpha": "number", "r": "number"},
                rest=(rest,),
            ),
        ),
        "event_equal": {"lang": digest_value(["en"])},
        "event_varied": {"adapter": "str"},
        "agreements": (("files['config']['r']", *ranks), (SCALE,)),
    }
    return Program(reads=tuple(reads), leaves=tuple(leaves), steps=tuple(steps), results=results, **{**given, **fields})


def adapter(folder: Path, program: Program, rank: int = 2, **config: Any) -> dict[str, Any]:
    """An adapter of a rank on disk, and the event that names it."""
    folder.mkdir()
    generator = torch.Generator().manual_seed(rank)
    keys = {read.key: [rank if size == RANKS else size for size in read.shape] for read in program.reads}
    save_file({key: torch.randn(*shape, generator=generator) for key, shape in keys.items()}, folder / "a.safetensors")
    (folder / "c.json").write_text(json.dumps({"r": rank, "lora_alpha": 3, "peft_type": "LORA"} | config))
    return {"adapter": str(folder), "lang": "en"}


def base() -> Callable[[str], torch.Tensor]:
    """The template: a private tensor each time."""

    def weights(name: str) -> torch.Tensor:
        return torch.randn(4, 4, generator=torch.Generator().manual_seed(sum(name.encode())))

    return weights


def on_disk(event: dict[str, Any]) -> tuple[Callable[[str, str], Any], dict[str, Any]]:
    folder = Path(event["adapter"])
    opened = safetensors.safe_open(folder / "a.safetensors", framework="pt")
    return lambda file, key: opened.get_tensor(key), {"config": json.loads((folder / "c.json").read_text())}
