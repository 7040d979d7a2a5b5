"""The records that a trace and a manifest share. All are frozen; times are seconds, sizes bytes, digests lower-case sha256."""

import hashlib
import json
from typing import Any

import msgspec


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """What every record of an artifact is: immutable, and exactly the fields that its schema names."""


class Function(Record, frozen=True):
    """The user's function, by name: `module` is imported with `root` on sys.path, and `handler` is an attribute of it."""

    module: str
    handler: str
    source: str  # path of the module's file, relative to root, with forward slashes
    inits: tuple[str, ...] = ()  # "module:attribute" given by --init; none where @tidalctl.init marks them
    static: bool = False  # --static: the promise of @tidalctl.init(static=True), for those functions
    encode: bool = False  # --encode: outputs that are not JSON are converted: see tidalctl.function.encoding
    shape: str = ""  # another form than handler(event, context), that `handler` names: see tidalctl.function.shapes

    @property
    def init(self) -> str:
        """The first of `inits`, or nothing."""
        return self.inits[0] if self.inits else ""


class Fingerprint(Record, frozen=True):
    """The environment that a trace or a bundle was made in. `distributions` maps a distribution to its version."""

    python: str
    implementation: str
    machine: str
    system: str
    torch: str
    cuda: str  # empty on a CPU-only torch
    device: str  # name of the device, "cpu" where there is none
    cpu_capability: str
    cpu_flags: str = ""  # digest of the processor's feature flags: where they agree, torch need not be asked
    distributions: dict[str, str] = {}


class KernelSignature(Record, frozen=True):
    """One kind of launch, without its data. A tensor operand is [dtype, shape, strides, device]; others stand as JSON text."""

    operator: str
    operands: tuple[str, ...]
    count: int
    time_s: float = 0.0  # in a trace
    kernels: tuple[str, ...] = ()  # in a trace: device kernels that the launch started; empty on a CPU


def canonical_json(value: Any) -> bytes:
    """The bytes that a digest of a JSON value is taken over: sorted keys, no spaces, UTF-8, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def digest_json(value: Any) -> str:
    return hashlib.sha256(canonical_json(value)).hexdigest()
