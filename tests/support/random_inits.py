"""Random inits as source text, over a checkpoint and one or two files of the request, and the events they are called with.

The fields in `vary` are those for any value of which an init takes the same steps; events of no trace may be wrong in anything.
"""

import json
import os
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import torch
from safetensors.torch import save_file

Event = dict[str, Any]
RANKS = {"a": 2, "b": 4, "c": 8, "d": 2, "e": 1, "f": 4, "g": 6, "h": 4}
ODD = ("gone", "short", "half", "wide", "texts", "more", "cut")  # each lacks a file, a key, a dtype, a shape ...
FIELDS = ("adapter", "scale", "alpha", "r", "n", "mode", "flag")
HEAD = """\
import json
import math
import os
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file

SCALES = {"x": 0.37, "y": 1.73, "z": 0.59}

def load(event):
"""
# Each makes a tensor of 4 x 8. {p} is a folder of the request, {a} and {b} are such tensors, {x} is a number.
BASES = (
    'load_file("base.safetensors")["w"]',
    'safe_open("base.safetensors", framework="pt").get_tensor("v")',
    'safe_open("base.safetensors", framework="pt").get_slice("w")[:, :]',
    'torch.load("base.pt", mmap=True)["layers"]["w"]',
    'torch.from_numpy(np.load("base.npy", mmap_mode="c"))',
)
PATHS = (
    "f\"adapters/{event['adapter']}/NAME\"",
    'os.path.join("adapters", event["adapter"], "NAME")',
    'Path("adapters") / event["adapter"] / "NAME"',
)
REQUESTS = (
    'load_file({p})["delta"]',
    'safe_open({p}, framework="pt").get_tensor("delta")',
    'safe_open({p}, framework="pt").get_slice("delta")[:]',
    'load_file({p})["B"] @ load_file({p})["A"] * ({x})',
    'torch.addmm(torch.ones(4, 8), load_file({p})["B"], load_file({p})["A"], alpha={x})',
    'torch.nn.functional.linear(load_file({p})["B"], load_file({p})["A"].t())',
    'torch.load({pt})["delta"]',
    'torch.load({pt})["B"].mul({x}) @ torch.load({pt})["A"]',
)
NEW = (
    *("{a} + {b}", "{a} * ({x})", "({x}) - {a}", "torch.lerp({a}, {b}, {x})", "torch.where({a} > {b}, {a}, {b})"),
    *("{a}.clone()", "{a}[:]", "{a}.detach()", "{a}.flip(0)", "{a}.t().contiguous().t()", "torch.empty_like({a}).copy_({b})"),
    *("{a}.double().mul({x}).float()", "torch.cat([{a}[:2], {b}[2:]])", "{a}.softmax(-1)", "{a} - {a}.mean()"),
    *("torch.full((4, 8), float({x}))", "torch.rand_like({a})", "torch.empty(4, 8).normal_().copy_({a})"),
    "torch.nn.Linear(8, 4, bias=False).weight.detach().copy_({a})",
)
WRITES = (
    *("{a}.mul_({x})", "{a} += {b}", "{a}.add_({b}, alpha={x})", "{a}[:1] *= {x}", "{a}.t()[0].add_({x})", "{a}.copy_({b})"),
    *("{a}.data[1:] += {b}[1:]", "{a}[:event['n']] += 1", "{a}.zero_()", "{a}[0, 0] = {x}", "torch.manual_seed(3)"),
)
NUMBERS = (
    *('event["scale"]', 'event["scale"]', 'event["alpha"] / event["r"]', 'event["alpha"] * 0.7 / event["r"]', "2", "0.5"),
    *(
        'event["scale"] + 1',
        'event.get("absent", 0.7)',
        'event["alpha"] / math.sqrt(event["r"])',
        'event["alpha"] // event["r"]',
    ),
    *('config["alpha"] / config["r"]', 'config["gain"] * event["scale"]', 'config["gain"]'),
)
# By what a field is no number of a step: which steps there are hangs on it, or what they take can't be seen.
STEERS = (
    ("if event['flag']:\n        {write}", ("flag",)),
    ("if event['mode'] == 'x':\n        {write}", ("mode",)),
    ("for _ in range(event['n']):\n        {write}", ("n",)),
    ("if event['alpha'] > event['r'] * 4:\n        {write}", ("alpha", "r")),
    ("if config['kind'] == 'lora':\n        {write}", ("adapter",)),
    ("{a}.mul_(SCALES[event['mode']])", ("mode",)),
    ("torch.manual_seed(event['n'])", ("n",)),
    ("{a}.numpy()[0] += {x}", ()),
    ("{a}.mul_({b}.sum().item())", ()),
)


@dataclass
class RandomProgram:
    source: str
    traced: list[Event]
    unseen: list[Event]
    vary: tuple[str, ...] = FIELDS

    def __str__(self) -> str:
        return f"{self.source}\n# vary {self.vary}\n# traced {self.traced}\n# unseen {self.unseen}"


def random_program(chance: random.Random) -> RandomProgram:
    """A few tensors of the checkpoint and of the request, statements over them, and some of them returned."""
    path = chance.choice(PATHS)
    of_file = {"p": path.replace("NAME", "adapter.safetensors"), "pt": path.replace("NAME", "adapter.pt")}
    lines = [f"config = json.loads(Path({path.replace('NAME', 'adapter.json')}).read_text())"] * (chance.random() < 0.4)
    numbers = [number for number in NUMBERS if lines or "config" not in number]
    names: list[str] = []
    vary = set(FIELDS)

    def filled(form: str) -> str:
        chosen = {"a": chance.choice(names[-3:] or [""]), "b": chance.choice(names or [""]), "x": chance.choice(numbers)}
        return form.format(**of_file, **chosen)

    for forms in (BASES, REQUESTS, *[(BASES, REQUESTS, NEW, NEW, WRITES, WRITES)[chance.randrange(6)] for _ in range(5)]):
        if forms is WRITES:
            lines.append(filled(chance.choice(WRITES)))
        else:
            lines.append(f"t{len(names)} = {filled(chance.choice(forms))}")
            names.append(f"t{len(names)}")
    if chance.random() < 0.2:
        steer, fields = chance.choice([entry for entry in STEERS if numbers is not NUMBERS or "config" not in entry[0]])
        if "config" not in steer or "config" in lines[0]:
            lines.append(filled(steer.replace("{write}", chance.choice(WRITES))))
            vary -= set(fields)
    kept = list(dict.fromkeys([names[-1], *chance.sample(names, 2)]))
    items = [f"'{name}': {name}" for name in kept] + chance.choice([[], [f"'tied': {kept[0]}"], [f"'part': {kept[0]}[:1]"]])
    traced, unseen = random_events(chance)
    source = HEAD + "".join(f"    {line}\n" for line in [*lines, f"return {{{', '.join(items)}}}"])
    return RandomProgram(source, traced, unseen, tuple(field for field in FIELDS if field in vary))


def random_event(chance: random.Random, traced: bool) -> Event:
    event: Event = {
        "adapter": chance.choice("bfhbfhbfhacdeg" if traced or chance.random() < 0.8 else ODD),
        "scale": chance.choice([0.5, 0.25, 1.7, 2.0, 3.0, 0.1]),
        "alpha": chance.choice([4, 8, 16, 32]),
        "r": chance.choice([2, 4, 8]),
        "n": chance.choice([1, 2, 3, 5]),
        "mode": chance.choice(["x", "y"] if traced else ["x", "y", "z"]),
        "flag": chance.random() < 0.5,
    }
    if not traced and chance.random() < 0.1:
        del event[chance.choice(sorted(event))]
    if not traced and chance.random() < 0.15:
        event[chance.choice(["scale", "alpha", "n"])] = chance.choice([0, -1, 1.5, "text", None, True, float(2**70)])
    return event


def random_events(chance: random.Random) -> tuple[list[Event], list[Event]]:
    """Two traced ones, which mostly agree in what steers, and three that no trace saw."""
    traced = [random_event(chance, True) for _ in range(2)]
    alike = {key for key in FIELDS if chance.random() < (0.8 if key in ("mode", "flag") else 0.2)}
    traced[1] |= {key: traced[0][key] for key in alike}
    unseen = [random_event(chance, False) for _ in range(3)]
    return traced, [event | {key: traced[0][key] for key in alike if key in event} for event in unseen]


def save(tensors: dict[str, torch.Tensor], path: Path) -> None:
    """A safetensors file whose tensors lie at multiples of 16 bytes, as a template's do: BLAS gives other last bits elsewhere."""
    save_file(tensors, path)
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    more = -(8 + size) % 16
    path.write_bytes((size + more).to_bytes(8, "little") + content[8 : 8 + size] + b" " * more + content[8 + size :])


def make_world(folder: Path) -> Path:
    """The checkpoint and the adapters."""
    generator = torch.Generator().manual_seed(7)

    def some(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    save({"w": some(4, 8), "v": some(4, 8)}, folder / "base.safetensors")
    torch.save({"layers": {"w": some(4, 8)}, "steps": 3}, folder / "base.pt")
    numpy.save(folder / "base.npy", some(4, 8).numpy())
    for place, name in enumerate((*RANKS, *ODD)):
        rank, where = RANKS.get(name, 4), folder / "adapters" / name
        where.mkdir(parents=True)
        tensors = {"A": some(rank, 8), "B": some(4, rank), "delta": some(4, 8)}
        settings: Event = {"r": rank, "alpha": 2 * rank if place % 2 else 16, "gain": 0.37 * (place + 1), "kind": "lora"}
        match name:
            case "short":
                del tensors["B"]
            case "half":
                tensors = {key: tensor.half() for key, tensor in tensors.items()}
            case "wide":
                tensors["A"] = some(rank, 9)
            case "texts":
                settings |= {"kind": "other", "alpha": "16"}
            case "more":
                tensors["more"], settings["more"] = some(3), True
        save(tensors, where / "adapter.safetensors")
        torch.save({"A": some(rank, 8), "B": some(4, rank), "delta": some(4, 8)}, where / "adapter.pt")
        (where / "adapter.json").write_text(json.dumps(settings))
        if name == "cut":
            os.truncate(where / "adapter.safetensors", 200)
        if name == "gone":
            for path in where.iterdir():
                path.unlink()
    return folder
