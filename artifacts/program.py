"""The dynamic program: how the part of a state that depends on the event is made, as data. `dynamic_init.py` is its readable form.

Expressions are Python over `event` and the names of the program's JSON files, made of subscripts, arithmetic, `math.sqrt`, and
`shape(value, dimension)`.
"""

from typing import Any

from tidalctl.artifacts.records import Record

GENERATOR = ".generator"


class ProgramFile(Record, frozen=True):
    """A file whose path is a function of the event: texts, and `("event", key, …)` ways into the event, one after the other.

    `kind` is safetensors, torch, json, other (its sha256 must be in `rest`), or absent or present (init looked whether it is there). A
    JSON file is a mapping; all of it but `free` must have the digest `rest`, as the metadata of a safetensors file must, and what a
    torch file holds besides its tensors. Its keys must come in one of the `orders`, where there are any.
    """

    name: str  # a Python identifier
    path: tuple[Any, ...]
    kind: str
    keys: tuple[str, ...] = ()  # a safetensors file must hold just these
    unordered: tuple[str, ...] = ()  # keys of a JSON file that hold sets, written as lists in any order
    free: dict[str, str] = {}  # keys of a JSON file whose values may be other numbers of the type given (int, float, number)
    orders: tuple[tuple[str, ...], ...] = ()
    rest: tuple[str, ...] = ()  # digests, one of which the rest of a file must have
    beside: tuple[tuple[str, ...], ...] = ()  # sorted names in its folder, one of which that folder must show


class ProgramRead(Record, frozen=True):
    """A tensor from one of the program's files. A dimension is a size, one of several, or any (None)."""

    value: int
    file: str
    key: str
    dtype: str
    shape: tuple[int | tuple[int, ...] | None, ...]


class ProgramLeaf(Record, frozen=True):
    """A static tensor: the template's entry `name`. Where the program writes to it, it is the program's own copy."""

    value: int
    name: str
    dtype: str
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int = 0


class ProgramStep(Record, frozen=True):
    """An operator. Arguments are those of a TapeStep, and `{"expression": "…"}` where one is a function of the event.

    A step without outputs that matter only draws from the random generator, so that it stands where init would have left it.
    """

    operator: str
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]
    outputs: tuple[int, ...]


class Agreement(Record, frozen=True):
    """Two explanations of one number that the traced events can't tell apart: where they differ, the program does not serve."""

    expressions: tuple[str, ...]


class Program(Record, frozen=True):
    """`results` maps the state's dynamic weights to values. `event_equal` are digests of fields that all traced events agree in.

    `event_free` are the fields that may be anything of the given JSON type. `generator` says that it draws random
    numbers from the generator's state in the entry GENERATOR of the template; without, it draws from wherever the generator stands.
    """

    files: tuple[ProgramFile, ...] = ()
    reads: tuple[ProgramRead, ...] = ()
    leaves: tuple[ProgramLeaf, ...] = ()
    steps: tuple[ProgramStep, ...] = ()
    results: dict[str, int] = {}
    event_equal: dict[str, str] = {}
    event_free: dict[str, str] = {}
    event_forms: dict[str, tuple[str, ...]] = {}  # of texts in paths: forms that the script's form() found in the traced ones
    event_among: dict[str, tuple[str, ...]] = {}  # digests of the values that were traced, where only those can be served
    agreements: tuple[Agreement, ...] = ()
    generator: bool = False
