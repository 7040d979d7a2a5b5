"""The folder of files that random init programs read, and the events they are called with: some that are traced, and others that no
trace saw, which may be wrong in anything, as the files may be."""

import json
import os
import random
from pathlib import Path
from typing import Any

import numpy
import torch
from safetensors.torch import save_file

Event = dict[str, Any]
OUT, IN, LAYERS = 4, 8, 2
RANKS = {"a": 2, "b": 4, "c": 8, "d": 2, "e": 1, "f": 4, "g": 6, "h": 4}
GOOD = tuple(RANKS)
ODD = ("gone", "short", "half", "wide", "texts", "more", "cut")


def save(tensors: dict[str, torch.Tensor], path: Path) -> None:
    """A safetensors file whose tensors lie at multiples of 16 bytes, as a template's do: BLAS gives other last bits elsewhere."""
    save_file(tensors, path)
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    more = -(8 + size) % 16
    path.write_bytes((size + more).to_bytes(8, "little") + content[8 : 8 + size] + b" " * more + content[8 + size :])


def make_world(folder: Path) -> Path:
    """The checkpoint, and adapters: those in GOOD are as they should be, those in ODD lack a file, a key, a dtype, a shape."""
    generator = torch.Generator().manual_seed(7)

    def some(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    base = {f"layers.{i}.weight": some(OUT, IN) for i in range(LAYERS)} | {f"layers.{i}.bias": some(OUT) for i in range(LAYERS)}
    save(base, folder / "base.safetensors")
    torch.save({"layers": {"w": some(OUT, IN), "b": some(OUT)}, "steps": 3}, folder / "base.pt")
    numpy.save(folder / "base.npy", some(OUT, IN).numpy())
    for place, name in enumerate((*GOOD, *ODD)):
        rank = RANKS.get(name, 4)
        where = folder / "adapters" / name
        where.mkdir(parents=True)
        tensors = {f"layers.{i}.{k}": some(rank, IN) if k == "A" else some(OUT, rank) for i in range(LAYERS) for k in "AB"}
        tensors["delta"] = some(OUT, IN)
        settings: dict[str, Any] = {
            "r": rank,
            "alpha": 2 * rank if place % 2 else 16,
            "gain": 0.37 * (place + 1),
            "kind": "lora",
        }
        if name == "short":
            del tensors["layers.1.B"]
        if name == "half":
            tensors = {key: tensor.half() for key, tensor in tensors.items()}
        if name == "wide":
            tensors["layers.0.A"] = some(rank, IN + 1)
        if name == "texts":
            settings["kind"], settings["alpha"] = "other", "16"
        if name == "more":
            tensors["more"], settings["more"] = some(3), True
        save(tensors, where / "adapter.safetensors")
        torch.save({"A": some(rank, IN), "B": some(OUT, rank), "delta": some(OUT, IN)}, where / "adapter.pt")
        (where / "adapter.json").write_text(json.dumps(settings))
        if name == "cut":
            os.truncate(where / "adapter.safetensors", 300)
        if name == "gone":
            for path in where.iterdir():
                path.unlink()
    return folder


def random_event(chance: random.Random, traced: bool) -> Event:
    """Traced events go to good adapters; others may be wrong in anything."""
    event: Event = {
        "adapter": chance.choice(GOOD if traced or chance.random() < 0.6 else ODD),
        "scale": chance.choice([0.5, 0.25, 1.7, 2.0, 3, 0.1]),
        "alpha": chance.choice([4, 8, 16, 32]),
        "r": chance.choice([2, 4, 8]),
        "n": chance.choice([1, 2, 3, 5]),
        "mode": chance.choice(["x", "y"] if traced else ["x", "y", "z"]),
        "flag": chance.random() < 0.5,
        "note": f"note {chance.randrange(1000)}",
    }
    event["folder"] = f"adapters/{event['adapter']}"
    if not traced and chance.random() < 0.15:
        del event[chance.choice(sorted(event))]
    if not traced and chance.random() < 0.15:
        event[chance.choice(["scale", "alpha", "n"])] = chance.choice([0, -1, 1.5, "text", None, True, float(2**70)])
    return event


def random_events(chance: random.Random) -> tuple[list[Event], list[Event]]:
    """Traced ones, which sometimes agree in a field or in a ratio, and those that no trace saw."""
    traced = [random_event(chance, True) for _ in range(chance.choice([2, 2, 3]))]
    alike = [key for key in ("scale", "alpha", "r", "n", "mode", "flag") if chance.random() < 0.3]
    if chance.random() < 0.8:
        alike.append("mode")
    if chance.random() < 0.8:
        alike.append("flag")
    for event in traced[1:]:
        event.update({key: traced[0][key] for key in alike})
        if event["adapter"] == traced[0]["adapter"] and chance.random() < 0.8:
            event["adapter"] = chance.choice([name for name in GOOD if name != traced[0]["adapter"]])
            event["folder"] = f"adapters/{event['adapter']}"
    if chance.random() < 0.15:
        for event in traced:
            event["alpha"] = 2 * event["r"]
    return traced, [
        random_event(chance, False)
        if chance.random() < 0.7
        else {**random_event(chance, True), **{key: traced[0][key] for key in ("mode", "flag")}}
        for _ in range(3)
    ]
