"""Process-wide settings that an init may change besides building its state, so that a restored process has them too.

Covered: torch's default dtype, gradient mode, threads, matmul precision and determinism; the random generators of torch (of CUDA
devices once CUDA is in use), Python and NumPy; and environment variables. Other side effects of init (registered handlers, patched
libraries) are not seen.
"""

import hashlib
import os
import pickle
import random
import sys
from typing import Any


def _settings() -> dict[str, tuple[Any, Any]]:
    """(read, write) by name. NumPy's only where something imported it."""
    import torch

    known: dict[str, tuple[Any, Any]] = {
        "torch.default_dtype": (torch.get_default_dtype, torch.set_default_dtype),
        "torch.default_device": (torch.get_default_device, torch.set_default_device),
        "torch.num_threads": (torch.get_num_threads, torch.set_num_threads),
        "torch.float32_matmul_precision": (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
        "torch.deterministic": (torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms),
        "torch.rng": (torch.get_rng_state, torch.set_rng_state),
        "random": (random.getstate, random.setstate),
        "environ": (lambda: dict(os.environ), _set_environ),
    }
    if torch.cuda.is_initialized():
        known[CUDA_RNG] = (_cuda_generators, _set_cuda_generators)
    if not torch.is_inference_mode_enabled():
        known["torch.grad"] = (torch.is_grad_enabled, torch.set_grad_enabled)
    numpy = sys.modules.get("numpy")
    if numpy is not None and "numpy.random" in sys.modules:
        known["numpy.random"] = (lambda: numpy.random.get_state(legacy=False), numpy.random.set_state)
    return known


_OF_TORCH = ("TORCHINDUCTOR_CACHE_DIR",)  # set by whichever import of its compiler comes first, always the same

CUDA_RNG = "torch.cuda.rng"
GENERATORS = ("torch.rng", "random", "numpy.random", CUDA_RNG)


def _cuda_generators() -> list[bytes]:
    """Of each device."""
    import torch

    return [bytes(state.tolist()) for state in torch.cuda.get_rng_state_all()]


def _set_cuda_generators(states: list[bytes]) -> None:
    """Of the devices that are here: one of another machine has more, or fewer."""
    import torch

    for device, state in zip(range(torch.cuda.device_count()), states, strict=False):
        torch.cuda.set_rng_state(torch.tensor(list(state), dtype=torch.uint8), device)


def _set_environ(values: dict[str, str | None]) -> None:
    """Set variables, and take away those that are None."""
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def read_ambient() -> dict[str, Any]:
    return {name: read() for name, (read, _) in _settings().items()}


def changed(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """What init changed. Of the environment only the variables that it set; a generator that init imported counts as changed."""
    found: dict[str, Any] = {}
    for name, value in after.items():
        if name == "environ":
            variables: dict[str, str | None] = {k: v for k, v in value.items() if before[name].get(k) != v}
            variables |= dict.fromkeys(before[name].keys() - value.keys())
            variables = {k: v for k, v in variables.items() if k not in _OF_TORCH}
            if variables:
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


def apply_ambient(values: dict[str, Any]) -> None:
    """Set what init had set."""
    if "numpy.random" in values:
        import numpy.random  # noqa: F401 - `import numpy` alone leaves it out
    if CUDA_RNG in values:
        import torch

        if torch.cuda.is_available():  # a state on the CPU may come to a machine that has no device
            torch.cuda.init()  # as init has
    settings = _settings() if values else {}
    for name, value in values.items():
        if name in settings:
            settings[name][1](value)


def ambient_digests(values: dict[str, Any]) -> dict[str, str]:
    """Digests to tell whether two runs of init left the same settings: a seeded generator from an advanced one."""
    return {name: hashlib.sha256(pickle.dumps(_plain(value), protocol=5)).hexdigest() for name, value in values.items()}


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else repr(value)
