"""Makes the files that peers load in place of a safetensors file, and says which peers there are.

    python benchmarks/peer_files.py --base build/models/1b/base [--peers build/peers]

Beside the checkpoint's folder: `model.pt` by torch.save, `model.tensors` by tensorizer's serializer. What is there is kept. Prints
one JSON object: by package, its version, and why it can't be used where it can't. In a process of its own: it imports torch.
"""

import argparse
import importlib
import importlib.metadata
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

PACKAGES = ("safetensors", "torch", "transformers", "runai_model_streamer", "fastsafetensors", "tensorizer")


def tensorize(weights: dict[str, torch.Tensor], path: Path) -> None:
    import tensorizer

    serializer = tensorizer.TensorSerializer(str(path))
    serializer.write_state_dict(weights)
    serializer.close()


# the package, the file, and what writes it
FILES: tuple[tuple[str, str, Callable[[dict[str, torch.Tensor], Path], None]], ...] = (
    ("torch", "model.pt", lambda weights, path: torch.save(weights, path)),
    ("tensorizer", "model.tensors", tensorize),
)


def package(name: str) -> dict[str, Any]:
    try:
        importlib.import_module(name)
        return {"version": importlib.metadata.version(name), "cause": None}
    except Exception as error:  # noqa: BLE001 - a package may fail to import in any way
        return {"version": None, "cause": f"{type(error).__name__}: {error}"}


def make(base: Path, name: str, write: Callable[[dict[str, torch.Tensor], Path], None]) -> None:
    """The file gets its name only when it is complete."""
    target = base.parent / name
    if target.exists():
        return
    partial = target.with_name(f"partial-{name}")
    write(load_file(base / "model.safetensors"), partial)
    os.rename(partial, target)
    print(f"made {target}", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, required=True, help="the checkpoint's folder")
    parser.add_argument("--peers", type=Path, help="a folder of packages beside the environment's")
    options = parser.parse_args()
    if options.peers and options.peers.is_dir():
        sys.path.append(str(options.peers.absolute()))
    found = {name: package(name) for name in PACKAGES}
    for name, file, write in FILES:
        if found[name]["cause"] is None:
            try:
                make(options.base, file, write)
            except Exception as error:  # noqa: BLE001 - somebody else's serializer may fail in any way
                found[name]["cause"] = f"it could not write {file}: {type(error).__name__}: {error}"
    print(json.dumps(found))


if __name__ == "__main__":
    main()
