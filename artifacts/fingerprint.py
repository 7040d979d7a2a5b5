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
from tidalctl.artifacts.project import is_own
from tidalctl.artifacts.records import Fingerprint

_METADATA = ".dist-info"
CAPABILITY_VARIABLE = b"ATEN_CPU_CAPABILITY"  # by which torch is told to use fewer vector instructions than there are


def read_fingerprint(imported: Iterable[str], device: str, root: str) -> Fingerprint:
    """The fingerprint of this process, with the distributions that the `imported` top-level modules belong to. Imports torch.

    Those in the project, which is at `root`, are not among them: the bundle ships what it needs of them.
    """
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
        distributions=dict(sorted(_distributions(imported, root))),
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


def _distributions(imported: Iterable[str], root: str) -> Iterable[tuple[str, str]]:
    """Names and versions of distributions; one that says nothing of its version, is vendored, or lies in the project is left out."""
    import importlib.metadata

    wanted = set(imported)
    owners = importlib.metadata.packages_distributions()
    names = {name for module, names in owners.items() if module in wanted for name in names}
    for name in names - {"tidalctl"}:
        distribution = importlib.metadata.distribution(name)
        folder = Path(str(getattr(distribution, "_path", "")))  # in a zip file it is no Path
        if is_own(str(folder), root) or _is_vendored(folder, sys.path):
            continue
        if not _lists_folders(str(folder.parent)):
            yield name, distribution.version
        elif (found := _in_name(folder.name)) is not None:
            yield found


def _in_name(folder: str) -> tuple[str, str] | None:
    """Name and version of a distribution, as they stand in the name of its `.dist-info` folder."""
    stem, _, version = folder.removesuffix(_METADATA).partition("-")
    return (stem, version) if version and folder.endswith(_METADATA) else None


def _lists_folders(entry: str) -> bool:
    """Whether the names in an entry of sys.path tell which distributions are there: in a zip file, or an egg, they do not."""
    return os.path.isdir(entry) and not entry.endswith(".egg")


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
    """Say which distributions are here in another version than in the trace, or not at all. A look at names of folders, no import."""
    here: dict[str, list[str]] = {}  # versions in the first entry of sys.path that has any
    for entry in path:
        found: dict[str, list[str]] = {}
        for name, version in _installed(entry or "."):
            found.setdefault(_normal(name), []).append(version)
        here = found | here
    compared = ((name, here.get(_normal(name), []), traced) for name, traced in fingerprint.distributions.items())
    return [
        f"{name} {' and '.join(sorted(versions)) or 'not'} here, {traced} in the trace"
        for name, versions, traced in compared
        if traced not in versions
    ]


def _installed(entry: str) -> Iterable[tuple[str, str]]:
    """Yield names and versions of the distributions in an entry of sys.path; none where nobody may look."""
    try:
        if _lists_folders(entry):
            yield from filter(None, map(_in_name, os.listdir(entry)))
        elif os.path.exists(entry):
            import importlib.metadata

            for distribution in importlib.metadata.distributions(path=[entry]):
                yield distribution.name, distribution.version
    except OSError:
        return


def _normal(name: str) -> str:
    """A distribution's name as all its spellings have it."""
    return name.lower().replace("-", "_").replace(".", "_")


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
