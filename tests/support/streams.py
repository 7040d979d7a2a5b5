"""What tests of weights that arrive share: runs over a slow link, a weight's record and digest, a call with a time limit."""

import inspect
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import slow_link
from conftest import Done, python

from tidalctl.artifacts.bundle.manifest import BundleWeight
from tidalctl.artifacts.bundle.weight_groups import Group
from tidalctl.artifacts.hashing import weight_hasher

SLOW_LINK = inspect.getsource(slow_link)
# `tidalctl run` over a slow link, in small groups, so that loading goes on while the handler computes
SLOW = f"""{SLOW_LINK}
import functools, importlib, sys
from tidalctl.runtime import launch
device, pace, size = sys.argv.pop(1), float(sys.argv.pop(1)), int(sys.argv.pop(1))
module, _, name = device.partition(":")
slow_down(getattr(importlib.import_module("tidalctl.runtime.weights." + module), name), pace)
launch.StreamOptions = functools.partial(launch.StreamOptions, group_size=size)
from tidalctl.__main__ import main
main()
"""
# a program that loads a bundle over one, of so many bytes a second, in small groups
SLOW_LOAD = f"""{SLOW_LINK}
import functools, json, sys, time
from pathlib import Path
import torch, tidalctl.runtime.restore, tidalctl.runtime.weights.unowned_weights
from tidalctl.runtime import load_bundle as load
from tidalctl.runtime.weights.mapped import MappedDevice
load.StreamOptions = functools.partial(load.StreamOptions, group_size=20_000)
slow_down(MappedDevice, float(sys.argv[2]))
begin = time.monotonic()
function = load.load_bundle(Path(sys.argv[1]))
"""
MAPPED, CUDA = "mapped:MappedDevice", "cuda:CudaDevice"


def slowly(
    bundle: Path, event: dict[str, Any], seconds: float, *options: str, group_size: int = 20_000, device: str = MAPPED
) -> Done:
    pace = (bundle / "weights.safetensors").stat().st_size / seconds
    run = ("run", bundle, "--event", json.dumps(event), "--json", *options)
    return python(SLOW, device, pace, group_size, *run, cwd=bundle.parent)


def weight(name: str, offset: int, nbytes: int, first_use: int | None = 0, xxh3: str = "", **more: Any) -> BundleWeight:
    """A weight of bytes, of the file "w" and on the CPU where nothing else is said."""
    made = {"file": "w", "device": "cpu", **more}
    kind: Any = {"dtype": "uint8", "shape": (nbytes,), "nbytes": nbytes, "sha256": "", "xxh3": xxh3}
    return BundleWeight(name=name, offset=offset, first_use=first_use, **kind, **made)


class Slow:
    """A device whose groups come when they are let, in a record of what was asked of it."""

    def __init__(self, before: Callable[[Group], None] = lambda group: None) -> None:
        self.before = before
        self.brought: list[int] = []
        self.checked: set[int] = set()
        self.hurried: set[int] = set()

    def bring(self, group: Group) -> None:
        self.brought.append(group.index)
        self.before(group)

    def check(self, group: Group) -> None:
        self.checked.add(group.index)

    def hurry(self, group: Group) -> None:
        self.hurried.add(group.index)

    def wait(self, group: Group) -> None:
        pass


def within(seconds: float, call: Callable[[], None]) -> BaseException | None:
    """What a call raises, if it ends in time; a test that would hang fails instead."""
    found: list[BaseException | None] = []

    def run() -> None:
        try:
            call()
            found.append(None)
        except BaseException as error:  # noqa: BLE001 - handed to the test
            found.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    assert found, "it waits for ever"
    return found[0]


def digest(data: bytes) -> str:
    return weight_hasher(data).hexdigest()
