"""The dynamic program: how the part of a state that depends on the event is made, as data. `dynamic_init.py` is its readable form.

Expressions are Python over `event` and `files` (JSON by name, or headers of tensors): `event['s'] / files['a']['w'].shape[0]`.
"""

from typing import Any

from tidalctl.artifacts.records import Record


class ProgramFile(Record, frozen=True):
    """A file whose path is a function of the event: texts, and `("event", key)` for fields of the event, one after the other.

    `kind` is safetensors, torch, json or other. A safetensors file must hold exactly `keys`. In a JSON file the numbers under the keys
    of `free` may be others of the type given (int, float, number). All else but what tensors hold must have one of the digests `rest`.
    """

    name: str
    path: tuple[Any, ...]
    kind: str
    keys: tuple[str, ...] = ()
    free: dict[str, str] = {}
    rest: tuple[str, ...] = ()


class ProgramRead(Record, frozen=True):
    """A tensor from one of the program's files. A dimension is a size, or one of several."""

    value: int
    file: str
    key: str
    dtype: str
    shape: tuple[int | tuple[int, ...], ...]


class ProgramLeaf(Record, frozen=True):
    """A static tensor: the template's entry `name`. Where the program writes to it, it is the program's own copy."""

    value: int
    name: str
    dtype: str
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int = 0


class ProgramStep(Record, frozen=True):
    """An operator. Arguments are those of a TapeStep, and `{"expression": "…"}` where one is a function of the event."""

    operator: str
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]
    outputs: tuple[int, ...]


class Program(Record, frozen=True):
    """`results` maps the state's dynamic weights to values.

    `event_equal` maps the fields that init read and that must be as traced to digests of their values; `event_varied` maps those
    that may differ to their JSON type (str, int, float, number). `agreements` are explanations of one number each, which the traced
    events can't tell apart: where they differ, the program does not serve.
    """

    files: tuple[ProgramFile, ...] = ()
    reads: tuple[ProgramRead, ...] = ()
    leaves: tuple[ProgramLeaf, ...] = ()
    steps: tuple[ProgramStep, ...] = ()
    results: dict[str, int] = {}
    event_equal: dict[str, str] = {}
    event_varied: dict[str, str] = {}
    agreements: tuple[tuple[str, ...], ...] = ()
