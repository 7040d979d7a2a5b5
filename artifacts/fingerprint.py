"""The environment that a trace or bundle was made in, and what it means when a run finds itself in another.

Refused: another Python, implementation, operating system or processor family, or a device that is not there; nothing in the bundle
may be loaded then. Fallback to the function's own init: another version of a distribution that the function imported,
another model of the device, or another CPU capability where init computes, since the state might then be built otherwise.
"""

import hashlib
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from tidalctl.artifacts.cause import Cause, Reason
from tidalctl.artifacts.errors import WrongFingerprint
from tidalctl.artifacts.records import Fingerprint

CAPABILITY_VARIABLE = b"ATEN_CPU_CAPABILITY"  # by which torch is told to use fewer vector instructions than there are


def read_fingerprint(imported: Iterable[str], device: str) -> Fingerprint:
    """The fingerprint of this process, with the distributions that the `imported` top-level modules belong to. Imports torch."""
    import platform

    import torch

    return Fingerprint(
        python=platform.python_version(),
        implementation=sys.implementation.name,
        machine=platform.machine(),
        system=platform.system(),
        torch=str(torch.__version__),
        cuda=torch.version.cuda or "",
        device=device,
        cpu_capability=torch.backends.cpu.get_cpu_capability(),
        cpu_flags=cpu_flags(_asked_at_start()),
        distributions=dict(sorted(_distributions(imported))),
    )


def _asked_at_start() -> bytes:
    """The value of CAPABILITY_VARIABLE as this process was given it, whatever the function has set since."""
    with open("/proc/self/environ", "rb") as file:
        found = [entry for entry in file.read().split(b"\0") if entry.startswith(CAPABILITY_VARIABLE + b"=")]
    return found[0].partition(b"=")[2] if found else b""


def cpu_flags(asked: bytes | None = None) -> str:
    """A digest of what decides which capability torch finds: the processor's features as Linux lists them, and torch's own variable.

    `asked` is that variable's value; None for what it is now.
    """
    asked = os.environb.get(CAPABILITY_VARIABLE, b"") if asked is None else asked
    with open("/proc/cpuinfo", "rb") as file:
        for line in file:
            if line.startswith((b"flags", b"Features")):
                return hashlib.sha256(line + asked).hexdigest()
    return ""


def _distributions(imported: Iterable[str]) -> Iterable[tuple[str, str]]:
    """(name, version) as they stand in the names of `.dist-info` folders; one without such a folder, or vendored, is left out."""
    import importlib.metadata

    wanted = set(imported)
    owners = importlib.metadata.packages_distributions()
    names = {name for module, names in owners.items() if module in wanted for name in names}
    for name in names - {"tidalctl"}:
        folder = getattr(importlib.metadata.distribution(name), "_path", None)
        if folder is not None and folder.name.endswith(".dist-info") and not _is_vendored(Path(folder), sys.path):
            stem, _, version = folder.name.removesuffix(".dist-info").partition("-")
            if version:
                yield stem, version


def _is_vendored(folder: Path, path: Sequence[str]) -> bool:
    """Whether a distribution lies inside a package of another one, which puts it on sys.path when it is imported, as setuptools does.

    It is not on the path before that, and the outer distribution's version stands for it.
    """
    outer = [Path(entry) for entry in path if entry and Path(entry) in folder.parent.parents]
    return any((entry / folder.relative_to(entry).parts[0] / "__init__.py").is_file() for entry in outer)


def refuse_other_python(fingerprint: Fingerprint) -> None:
    """Raise WrongFingerprint unless this interpreter may load what is in the bundle. Imports nothing."""
    here = {
        "Python": ".".join(map(str, sys.version_info[:2])),
        "implementation": sys.implementation.name,
        "system": os.uname().sysname,
        "processor": os.uname().machine,
    }
    made = {
        "Python": ".".join(fingerprint.python.split(".")[:2]),
        "implementation": fingerprint.implementation,
        "system": fingerprint.system,
        "processor": fingerprint.machine,
    }
    for what, value in here.items():
        if made[what] != value:
            raise WrongFingerprint(
                f"the bundle was made for {what} {made[what]}; this is {value}", "trace and compile the function here"
            )


def changed_distributions(fingerprint: Fingerprint, path: Sequence[str]) -> list[str]:
    """Distributions that are not here in the version that the bundle was made with; a look at folder names, no import."""
    return [
        f"{name} {version}"
        for name, version in fingerprint.distributions.items()
        if not any(os.path.isdir(f"{entry or '.'}/{name}-{version}.dist-info") for entry in path)
    ]


def refuse_missing_device(fingerprint: Fingerprint) -> None:
    """Raise WrongFingerprint where the state lives on a device that this torch does not see. Call it once torch is imported."""
    import torch

    if fingerprint.device != "cpu" and not torch.cuda.is_available():
        raise WrongFingerprint(
            f"the bundle's weights live on {fingerprint.device}; torch sees no such device here",
            "compile the function for this machine",
        )


def device_mismatch(fingerprint: Fingerprint) -> Reason | None:
    """Return how the device that the state lives on differs, or None. Call it once torch is imported."""
    import torch

    if fingerprint.device == "cpu" or not torch.cuda.is_available() or torch.cuda.get_device_name() == fingerprint.device:
        return None
    return Cause.DEVICE_DIFFERS.of(here=torch.cuda.get_device_name(), traced=fingerprint.device)


def cpu_mismatch(fingerprint: Fingerprint, computed: str | None) -> Reason | None:
    """Return how the CPU differs, or None. `computed` names what it matters for; None where it matters for nothing. Imports torch."""
    if computed is None:
        return None
    import torch

    here, traced = torch.backends.cpu.get_cpu_capability(), fingerprint.cpu_capability
    return None if here == traced else Cause.CPU_DIFFERS.of(here=here, traced=traced, computed=computed)
