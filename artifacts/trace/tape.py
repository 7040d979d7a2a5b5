"""The tape: what one call of init did with tensors, step by step, in the order in which it happened.

A *value* is one tensor as an operator saw it: a storage, a geometry over it (shape, strides, offset) and a dtype, numbered from 0 in
each call. Two tensors that are the same view of the same storage are one value, so that `.data` and `detach` make none.

Arguments of an operator are JSON: numbers, strings, booleans, None and lists stand for themselves, and maps of one key for the rest:
`{"value": 3}` a tensor, `{"dtype": "float16"}`, `{"device": "cpu"}`, `{"layout": "strided"}`, `{"memory_format": "preserve_format"}`,
`{"generator": "<sha256 of its state>"}`, `{"complex": [1.0, 2.0]}`, and `{"opaque": "<type>"}` for what none of these is.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from tidalctl.artifacts.project import inside
from tidalctl.artifacts.records import Record

UNKNOWN = "unknown"
DOUBT = "?"  # begins the identity of what rests on something of unknown origin, or drawn without a seed
DRAWN = "?~"  # of the latter

# the operator by which the host reads a number; other ways to look at a tensor's content are steps named `host.…`
HOST_READ = "aten._local_scalar_dense"

# in-place operators that leave nothing of what was there
OVERWRITES = frozenset(
    f"aten.{name}"
    for name in ("copy_", "fill_", "zero_", "normal_", "uniform_", "random_", "bernoulli_", "exponential_", "log_normal_")
)

# operators that give memory as they find it
UNWRITTEN = frozenset(
    f"aten.{name}"
    for name in ("empty", "empty_like", "empty_strided", "empty_permuted", "new_empty", "new_empty_strided", "resize_")
)


class Value(Record, frozen=True):
    """A tensor as operators see it. `storage` numbers the storages of the call; `size` is the storage's, in bytes."""

    storage: int
    dtype: str
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int  # in elements
    size: int
    device: str = "cpu"


def whole(made: Value) -> bool:
    """Whether a value is all of its storage, in order."""
    count, stride = 1, []
    for size in reversed(made.shape):
        stride.append(count)
        count *= max(size, 1)
    contiguous = all(
        size == 1 or own == want for size, own, want in zip(made.shape, made.stride, reversed(stride), strict=True)
    )
    return contiguous and made.offset == 0 and count * _ITEM.get(made.dtype, 0) == made.size


_ITEM = {
    "bool": 1, "uint8": 1, "int8": 1, "float8_e4m3fn": 1, "float8_e5m2": 1, "int16": 2, "uint16": 2, "float16": 2, "bfloat16": 2,
    "int32": 4, "uint32": 4, "float32": 4, "complex64": 8, "float64": 8, "int64": 8, "uint64": 8, "complex128": 16,
}  # fmt: skip


class TapeRead(Record, frozen=True, tag="read"):
    """A loader handed out a tensor, or one was first seen whose making was not (file `unknown`). `digest` is of its content."""

    event: int
    ordinal: int
    value: int
    made: Value
    file: str  # absolute where it is a file
    key: str
    digest: str
    identity: str = ""
    operators: tuple[str, ...] = ()  # what the loader did to it outside of torch (a slice, a dequantisation)
    call: int = 0  # the place of init's call among the trace's


class TapeStep(Record, frozen=True, tag="step"):
    """An operator ran. `outputs` are value numbers, and `made` describes each of them.

    `identities` are pairs of a storage and its identity from now on; one that begins with `?` rests on something of unknown origin,
    or drawn without a seed. `view` says that the step only made another view of an input. `draws` is the digest of the generator's
    state before it drew from it. `operator` names the overload: `aten.add_.Tensor`. Reads by the host
    are the operators `aten._local_scalar_dense.default` and `host.numpy`, `host.tolist`.
    """

    event: int
    ordinal: int
    operator: str
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]
    outputs: tuple[int, ...]
    made: tuple[Value, ...] = ()
    writes: tuple[int, ...] = ()  # values among the arguments that it wrote to
    identities: tuple[tuple[int, str], ...] = ()
    view: bool = False
    draws: str = ""
    call: int = 0  # as of TapeRead


def values_in(value: Any) -> list[int]:
    """The numbers of the values that an encoded argument names, in order."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [number for item in value for number in values_in(item)]
    if isinstance(value, Mapping) and "value" in value:
        return [value["value"]]
    return []


def place_of(file: str, root: str) -> str:
    """A file's name in identities: one of the project's goes by its place in it, so that the project may move."""
    if file == UNKNOWN:
        return file
    path = os.path.abspath(file)
    return f"project:{os.path.relpath(path, root)}" if root and path.startswith(inside(root)) else path
