"""Process-wide settings that init may change besides building its state: read, compared, and set again in a restored process.

Covered: torch's default dtype and device, gradient mode, threads, matmul precision, oneDNN and determinism; the random generators of
torch (of CUDA devices once CUDA is in use), Python and NumPy; Python's recursion limit; and environment variables.
"""

import contextlib
import hashlib
import os
import pickle
import random
import sys
from collections.abc import Callable, Collection, Iterable
from typing import Any

from tidalctl.function.working_environment import environ_changes, set_environ

CUDA_RNG = "torch.cuda.rng"
GENERATORS = ("torch.rng", "random", "numpy.random", CUDA_RNG)
# of the settings, those that decide what an init builds, in words
WORDS = {
    "torch.default_dtype": "torch's default dtype",
    "torch.default_device": "torch's default device",
    "torch.float32_precision": "torch's float32 precision",
    "torch.deterministic": "use of deterministic algorithms",
    "torch.mkldnn": "use of oneDNN",
}
AUTOCAST = {"cpu": "the CPU", "cuda": "CUDA"}
# where torch keeps how exactly it computes in single precision; the first holds where the others are "none"
PRECISIONS = ("", "cuda.matmul", "mkldnn", "mkldnn.matmul", "mkldnn.conv", "mkldnn.rnn", "cudnn", "cudnn.conv", "cudnn.rnn")
TOGETHER = "matmul"  # the older setting, of all backends at once; torch can't say it where they differ

# -- reading and setting


def read_ambient() -> dict[str, Any]:
    """Return all settings of this process by name."""
    return {name: read() for name, (read, _) in _settings().items()}


def apply_ambient(values: dict[str, Any]) -> None:
    """Set some settings, as `read_ambient` or `changed` give them."""
    if "numpy.random" in values:
        import numpy.random  # noqa: F401 - `import numpy` alone leaves it out
    if CUDA_RNG in values:
        begin_cuda()  # as init has
    settings = _settings() if values else {}
    for name, value in values.items():
        if name in settings:
            settings[name][1](value)


def _settings() -> dict[str, tuple[Callable[[], Any], Callable[[Any], None]]]:
    """Return how each setting is read and set. NumPy's only where something imported it."""
    import torch

    known: dict[str, tuple[Any, Any]] = {
        "torch.default_dtype": (torch.get_default_dtype, torch.set_default_dtype),
        "torch.default_device": (_default_device, torch.set_default_device),
        "torch.num_threads": (torch.get_num_threads, torch.set_num_threads),
        "torch.float32_precision": (_precisions, _set_precisions),
        "torch.deterministic": (torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms),
        "torch.rng": (torch.get_rng_state, torch.set_rng_state),
        "torch.mkldnn": (lambda: torch.backends.mkldnn.enabled, lambda on: setattr(torch.backends.mkldnn, "enabled", on)),
        "recursion limit": (sys.getrecursionlimit, sys.setrecursionlimit),
        "random": (random.getstate, random.setstate),
        "environ": (lambda: dict(os.environ), set_environ),
    }
    if torch.cuda.is_initialized():
        known[CUDA_RNG] = (_cuda_generators, _set_cuda_generators)
    if not torch.is_inference_mode_enabled():
        known["torch.grad"] = (torch.is_grad_enabled, torch.set_grad_enabled)
    numpy = sys.modules.get("numpy")
    if numpy is not None and "numpy.random" in sys.modules:
        known["numpy.random"] = (lambda: numpy.random.get_state(legacy=False), numpy.random.set_state)
    return known


def _default_device() -> Any:
    """Return torch's default device, without importing what sets one where nobody has."""
    import torch

    return torch.get_default_device() if "torch.utils._device" in sys.modules else torch.device("cpu")


def _precisions() -> dict[str, str]:
    import torch

    found = {}
    with contextlib.suppress(RuntimeError):
        found[TOGETHER] = torch.get_float32_matmul_precision()
    return found | {name: _backend(name).fp32_precision for name in PRECISIONS}


def _set_precisions(values: dict[str, str]) -> None:
    import torch

    if TOGETHER in values:
        torch.set_float32_matmul_precision(values[TOGETHER])
    for name in PRECISIONS:
        if _backend(name).fp32_precision != values[name]:
            _backend(name).fp32_precision = values[name]


def _backend(name: str) -> Any:
    import torch

    found = torch.backends
    for part in name.split(".") if name else ():
        found = getattr(found, part)
    return found


# -- comparing


def changed(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """Return the settings that are not what they were, as they are after.

    Of the environment only the variables that differ. A generator that was not there before (init imported it) counts as changed.
    """
    found: dict[str, Any] = {}
    for name, value in after.items():
        if name == "environ":
            if variables := environ_changes(before[name], value):
                found[name] = variables
        elif name not in before or not _same(before[name], value):
            found[name] = value
    return found


def _same(one: Any, other: Any) -> bool:
    import torch

    if isinstance(one, torch.Tensor):
        return bool(torch.equal(one, other))
    if isinstance(one, dict):
        return repr(one) == repr(other)
    return bool(one == other)


def ambient_digests(values: dict[str, Any]) -> dict[str, str]:
    """Return digests by which two runs of init can be compared: they tell a seeded generator from an advanced one."""
    return {name: hashlib.sha256(pickle.dumps(_plain(value), protocol=5)).hexdigest() for name, value in values.items()}


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else repr(value)


def torch_settings() -> dict[str, str]:
    """Return in words, by name, what torch is set to and what decides what an init builds.

    Not how many threads: each machine has its own.
    """
    import torch

    known = _settings()
    return {
        **{words: _said(known[name][0]()) for name, words in WORDS.items()},
        "recording of gradients": str(torch.is_grad_enabled()),
        "inference mode": str(torch.is_inference_mode_enabled()),
        **{f"autocasting on {name}": str(_autocast(device)) for device, name in AUTOCAST.items()},
    }


def _autocast(device: str) -> Any:
    """Return the dtype that operators are cast to; False where autocasting is off."""
    import torch

    return torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device)


def _said(value: Any) -> str:
    if not isinstance(value, dict):
        return str(value)
    # as torch has them where nobody sets one
    usual = {**dict.fromkeys(PRECISIONS, "none"), "cudnn.conv": "tf32", "cudnn.rnn": "tf32"}
    other = [f"{name or 'all'}: {kind}" for name, kind in value.items() if name in usual and kind != usual[name]]
    return ", ".join([value.get(TOGETHER, "by backend"), *other])


# -- random generators


class FirstGenerators:
    """The random generators as the first event finds them, so that each event finds them as it would in a process of its own."""

    def __init__(self) -> None:
        self.states: dict[str, Any] = {}  # by name
        self._seed = 0

    def put_back(self) -> None:
        """Set the generators for an event that begins: the first one's are noted."""
        import torch

        now = read_ambient()
        if not self.states:
            self.states = {name: now[name] for name in GENERATORS if name in now}
            self._seed = torch.initial_seed()
        elif CUDA_RNG in now and CUDA_RNG not in self.states:
            torch.cuda.manual_seed_all(self._seed)  # an earlier event was the first to use a device; torch seeds all alike
        apply_ambient(self.states)


def begun(before: dict[str, Any], after: dict[str, Any], seeded: Collection[str] = ()) -> dict[str, Any]:
    """Return `before` with the states in which generators of CUDA devices began, where init was the first to use a device.

    A generator's state is its seed and what was drawn, 8 bytes each: it began with the seed that it has, whoever had set that, and
    nothing drawn. Where it is among those that init `seeded`, nobody knows how it began.
    """
    if CUDA_RNG in before or CUDA_RNG not in after or CUDA_RNG in seeded:
        return before
    return {**before, CUDA_RNG: [state[:8] + bytes(8) for state in after[CUDA_RNG]]}


def seeds(names: Iterable[str]) -> dict[str, Any]:
    """Return what tells of these generators whether they were seeded since: the seed, or the digest of a state that has none.

    None for those of CUDA devices while none is in use and no seed waits for one.
    """
    import torch

    found: dict[str, Any] = {}
    here: dict[str, Any] = {}
    for name in names:
        if name == "torch.rng":
            found[name] = torch.initial_seed()
        elif name == CUDA_RNG:
            found[name] = _cuda_seeds()
        else:
            here = here or read_ambient()
            found[name] = ambient_digests({name: here[name]})[name] if name in here else ""
    return found


def _cuda_seeds() -> Any:
    import torch

    if torch.cuda.is_initialized():
        return [state[:8] for state in _cuda_generators()]
    queue = getattr(torch.cuda, "_lazy_seed_tracker", None)  # of seeds that wait for a device to be in use
    waiting = queue is None or any(queue.get_calls())
    return "waiting" if waiting else None


def _cuda_generators() -> list[bytes]:
    """Return the state of each device's generator."""
    import torch

    return [bytes(state.tolist()) for state in torch.cuda.get_rng_state_all()]


def _set_cuda_generators(states: list[bytes]) -> None:
    """Set the generators of the devices that are here: one of another machine has more, or fewer."""
    import torch

    for device, state in zip(range(torch.cuda.device_count()), states, strict=False):
        # on the CPU, whatever default device init has set
        torch.cuda.set_rng_state(torch.tensor(list(state), dtype=torch.uint8, device="cpu"), device)


def begin_cuda() -> None:
    """Have generators of devices, where there are any: a state on the CPU may come to a machine that has none."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.init()
