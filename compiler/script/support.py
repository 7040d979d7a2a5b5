"""Which events a bundle answers, and the files that the weights of an event are made of.

Each bundle's dynamic_init.py begins with this module's text (down to the line about files, where nothing is made of them), and goes on
with what is generated from the traces.
"""

import hashlib
import json
import os
import sys
import types
from collections.abc import Callable, Iterable, Mapping
from typing import Any


def digest(value: Any) -> str:
    """Return the sha256 of a value as compact JSON."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def event_mismatch(event: Any, equal: Mapping[str, str]) -> str | None:
    """Return which fields of the event are not as traced, or None.

    `equal` maps them to digests of their values (each in a list, since it may be absent).
    """
    if equal and not isinstance(event, dict):
        return "the event is not a JSON object"
    differing = [key for key, seen in equal.items() if digest([event[key]] if key in event else {"absent": True}) != seen]
    if not differing:
        return None
    fields = ", ".join(f"event[{json.dumps(key)}]" for key in differing)
    return f"{fields} {'is not the traced one' if len(differing) == 1 else 'are not the traced ones'}"


def run_alone(arguments: list[str], refusal: Callable[[Any], str | None], answer: Callable[[Any], list[str]]) -> int:
    """Print the answer for the event in `arguments` (exit code 0), or why init makes its state (1). Not an event: 2."""
    if len(arguments) != 1:
        print("usage: python dynamic_init.py EVENT, where EVENT is a JSON object", file=sys.stderr)
        return 2
    try:
        event = json.loads(arguments[0])
    except ValueError as error:
        print("error: the event is not JSON:", error, file=sys.stderr)
        return 2
    reason = refusal(event)
    lines = []
    if reason is None:
        try:
            lines = answer(event)
        except ValueError as error:
            reason = str(error)
    print("\n".join(lines) if reason is None else f"init makes its state: {reason}")
    return 0 if reason is None else 1


# ---- files: only where weights are made of them ----

TYPES: dict[str, tuple[type, ...]] = {kind.__name__: (kind,) for kind in (str, int, float, bool, list, dict)}
TYPES["number"] = (int, float)


class File:
    """What a file that the event names must be.

    `kind` is safetensors, torch, json or other. `rest` are digests, one of which its contents must have, but for tensors and for the
    numbers under the keys `free` (which maps them to their types). `tensors` maps keys to dtype and shape (None: any); a size in a
    shape is a number, or one of several.
    """

    __slots__ = ("free", "kind", "rest", "tensors")

    def __init__(
        self,
        kind: str,
        rest: tuple[str, ...] = (),
        free: Mapping[str, str] | None = None,
        tensors: Mapping[str, tuple[Any, Any]] | None = None,
    ) -> None:
        self.kind = kind
        self.rest = rest
        self.free = free or {}
        self.tensors = tensors or {}


def path_list(paths: Callable[[Any], dict[str, Any]], event: Any) -> list[str]:
    """Return the event's paths, each once. Raise LookupError or TypeError where it does not name them."""
    found = list(dict.fromkeys(paths(event).values()))
    if not all(isinstance(path, str) for path in found):
        raise TypeError("a path that is not a text")
    return found


def program_mismatch(
    event: Any,
    equal: Mapping[str, str],
    varied: Mapping[str, str],
    files: Mapping[str, File],
    paths: Callable[[Any], dict[str, str]],
    agreements: Callable[[Any, Any], Iterable[tuple[Any, ...]]],
) -> str | None:
    """Return why `build` can't answer for the event, or None. Reads JSON files and headers, and never raises."""
    try:
        if reason := event_mismatch(event, equal) or type_mismatch(event, varied):
            return reason
        path_list(paths, event)
        known: dict[str, Any] = {}
        for name, path in paths(event).items():
            if reason := file_mismatch(path, files[name], name, known):
                return reason
        return disagreement(agreements(event, known))
    except Exception as error:  # noqa: BLE001 - whatever it is, init will say it better
        return f"the event can't be checked: {type(error).__name__}: {error}"


def type_mismatch(event: dict[str, Any], varied: Mapping[str, str]) -> str | None:
    """Return which field that may have any value of a JSON type has none of that type, or None."""
    for key, kind in varied.items():
        if key not in event:
            return f"event[{json.dumps(key)}] is missing"
        if type(event[key]) not in TYPES[kind]:
            return f"event[{json.dumps(key)}] is not a {kind}"
    return None


def file_mismatch(path: str, file: File, name: str, known: dict[str, Any]) -> str | None:
    """Return how a file differs from the traced ones, or None. Put what it holds (JSON, or the header of its tensors) in `known`."""
    if not os.path.isfile(path):
        return f"there is no file {path}"
    if not os.access(path, os.R_OK):
        return f"{path} can't be read"
    if file.kind == "json":
        try:
            known[name] = read_json(path)
        except ValueError as error:
            return f"{path} is not JSON: {error}"
        return json_mismatch(path, known[name], file)
    if file.kind == "other" and file_digest(path) not in file.rest:
        return f"{path} is none of the traced ones"
    if file.kind == "safetensors":
        try:
            known[name] = read_header(path)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            return f"{path} is not a safetensors file: {error}"
        if reason := tensors_mismatch(path, known[name], file.tensors):
            return reason
        if file.rest and metadata_digest(path) not in file.rest:
            return f"the metadata of {path}, or the order of its tensors, are none of the traced ones"
    return None


def json_mismatch(path: str, mapping: Any, file: File) -> str | None:
    """Return how a JSON file differs from the traced ones in more than the values of its free numbers, or None."""
    if not isinstance(mapping, dict):
        return f"{path} is not a JSON object"
    for key, kind in file.free.items():
        if type(mapping.get(key)) not in TYPES[kind]:
            return f"{json.dumps(key)} in {path} is not a number of type {kind}"
    if json_digest(mapping, file.free) not in file.rest:
        return f"{path} differs from the traced ones" + (f" in more than {', '.join(file.free)}" if file.free else "")
    return None


def read_json(path: str) -> Any:
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def json_digest(mapping: Mapping[str, Any], free: Iterable[str]) -> str:
    """Return the digest of all of a JSON file's mapping but its free numbers. The order of the keys counts."""
    rest = {key: None if key in free else value for key, value in mapping.items()}
    return hashlib.sha256(json.dumps(rest, separators=(",", ":")).encode()).hexdigest()


def file_digest(path: str | os.PathLike[str]) -> str:
    """Return the digest of all of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_header(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return dtype and shape of each tensor of a safetensors file, from its header alone."""
    with open(path, "rb") as file:
        size = int.from_bytes(file.read(8), "little")
        left = os.fstat(file.fileno()).st_size - 8 - size
        if size > 100_000_000 or left < 0:
            raise ValueError("its header is longer than it")
        header = json.loads(file.read(size).decode())
    header.pop("__metadata__", None)
    if max((entry["data_offsets"][1] for entry in header.values()), default=0) != left:
        raise ValueError("it is cut off, or too long")
    return {key: types.SimpleNamespace(dtype=entry["dtype"], shape=tuple(entry["shape"])) for key, entry in header.items()}


def metadata_digest(path: str | os.PathLike[str]) -> str:
    """Return the digest of a safetensors file's metadata, and of the order in which its tensors lie (load_file gives them in that)."""
    with open(path, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")).decode())
    metadata = header.pop("__metadata__", {})
    names = sorted(header, key=lambda name: header[name]["data_offsets"])
    return hashlib.sha256(json.dumps([metadata, names], sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def tensors_mismatch(path: str, stored: Mapping[str, Any], wanted: Mapping[str, tuple[Any, Any]]) -> str | None:
    """Return how the stored tensors (keys, dtypes, shapes) are not those wanted, or None."""
    if differing := sorted(stored.keys() ^ wanted.keys()):
        return f"{path} {'lacks' if differing[0] in wanted else 'also holds'} {differing[0]}"
    for key, (dtype, shape) in wanted.items():
        found = str(stored[key].dtype).removeprefix("torch.")
        if dtype is not None and found != dtype:
            return f"{key} in {path} is {found}, not {dtype}"
        if shape is not None and not shape_fits(tuple(stored[key].shape), shape):
            return f"{key} in {path} has the shape {tuple(stored[key].shape)}, not {shape}"
    return None


def shape_fits(shape: tuple[int, ...], wanted: tuple[Any, ...]) -> bool:
    allowed = [sizes if isinstance(sizes, tuple) else (sizes,) for sizes in wanted]
    return len(shape) == len(wanted) and all(size in sizes for size, sizes in zip(shape, allowed, strict=True))


def disagreement(lines: Iterable[tuple[Any, ...]]) -> str | None:
    """Return why numbers that must be equal, type included, are not, or None."""
    try:
        for first, *others in lines:
            if any(type(other) is not type(first) or other != first for other in others):
                return f"numbers that were equal in the traces are not: {first}, {', '.join(map(str, others))}"
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        return f"a number can't be computed: {type(error).__name__}: {error}"
    return None


def open_files(
    files: Mapping[str, File],
    paths: Mapping[str, str],
    event: Any = None,
    agreements: Callable[[Any, Any], Iterable[tuple[Any, ...]]] | None = None,
) -> dict[str, Any]:
    """Return what a program reads: JSON, safetensors files opened by `safe_open`, the tensors of torch files by their keys.

    Raise ValueError where a torch file is not as traced, or numbers that hang on one don't agree.
    """
    opened: dict[str, Any] = {}
    known: dict[str, Any] = {}
    for name, file in files.items():
        if file.kind == "json":
            opened[name] = known[name] = read_json(paths[name])
        elif file.kind == "torch":
            opened[name] = known[name] = read_torch(paths[name], file)
        elif file.kind == "safetensors":
            from safetensors import safe_open

            opened[name] = safe_open(paths[name], framework="pt")
            known[name] = read_header(paths[name]) if agreements else {}
    if agreements and (reason := disagreement(agreements(event, known))):
        raise ValueError(reason)
    return opened


def read_torch(path: str, file: File) -> dict[str, Any]:
    """Return the wanted tensors of a file that torch.save wrote. Raise ValueError where they, or what lies beside them, differ."""
    loaded = load_torch(path)
    if file.rest and torch_digest(loaded) not in file.rest:
        raise ValueError(f"what {path} holds besides its tensors is none of the traced ones")
    try:
        tensors = {key: tensor_at(loaded, key) for key in file.tensors}
    except KeyError as error:
        raise ValueError(f"{path} lacks {error}") from None
    if reason := tensors_mismatch(path, tensors, file.tensors):
        raise ValueError(reason)
    return tensors


def load_torch(path: str | os.PathLike[str]) -> Any:
    import torch

    return torch.load(path, map_location="cpu", weights_only=True)


def torch_digest(loaded: Any) -> str:
    """Return the digest of a torch file: keys in order, numbers, texts, which tensors share memory; not the tensors' values."""
    return hashlib.sha256(repr(outline(loaded, {}, {})).encode()).hexdigest()


def outline(value: Any, boxes: dict[int, int], storages: dict[int, int]) -> Any:
    """Return what `torch_digest` covers of a value. `boxes` and `storages` number the containers and storages met before."""
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    if hasattr(value, "untyped_storage"):
        storage = value.untyped_storage()._cdata
        known = storage in storages
        what = (value.dtype, value.dim(), value.requires_grad, value.is_contiguous(), value.storage_offset())
        sizes = (tuple(value.shape), value.stride()) if known else ()  # those of the first in a storage are in File.tensors
        return kind, storages.setdefault(storage, len(storages)), what, sizes
    if not isinstance(value, dict | list | tuple | set | frozenset):
        return kind, repr(value)
    if id(value) in boxes:
        return kind, boxes[id(value)]
    boxes[id(value)] = len(boxes)
    items = [part for item in value.items() for part in item] if isinstance(value, dict) else value
    inside = [outline(item, boxes, storages) for item in items]
    if isinstance(value, set | frozenset):
        inside.sort(key=repr)
    return kind, inside, [(name, outline(item, boxes, storages)) for name, item in getattr(value, "__dict__", {}).items()]


def tensor_at(loaded: Any, key: str) -> Any:
    """Return the tensor that a dotted path leads to; names may hold dots themselves. Raise KeyError where there is none."""
    if hasattr(loaded, "data_ptr") and key in ("", "state"):
        return loaded
    items = list(loaded.items() if isinstance(loaded, dict) else enumerate(loaded) if isinstance(loaded, list | tuple) else ())
    for name, value in items:
        if str(name) == key and hasattr(value, "data_ptr"):
            return value
    for name, value in items:
        if key.startswith(f"{name}."):
            try:
                return tensor_at(value, key[len(f"{name}.") :])
            except KeyError:
                pass
    raise KeyError(key)


def stored_weights(folder: str, leaves: Mapping[str, tuple[Any, ...]]) -> Callable[[str], Any]:
    """Return a function that gives the template's tensors, from the weights files in a folder, each a copy."""
    import torch
    from safetensors import safe_open

    names = [name for name in sorted(os.listdir(folder)) if name.startswith("weights") and name.endswith(".safetensors")]
    shards = [safe_open(os.path.join(folder, name), framework="pt") for name in names]

    def weights(name: str) -> Any:
        dtype, shape, strides, offset = leaves[name]
        (stored,) = (shard.get_tensor(name) for shard in shards if name in set(shard.keys()))
        flat = stored.clone().reshape(-1).view(torch.uint8).view(getattr(torch, dtype))
        return flat.as_strided(shape, strides, offset)

    return weights


def weight_lines(made: Mapping[str, Any]) -> list[str]:
    """Return a line a weight: its name, dtype, shape, and the sha256 of its bytes."""
    import ctypes

    lines = []
    for name, tensor in sorted(made.items()):
        flat = tensor.detach().cpu().contiguous()
        content = ctypes.string_at(flat.data_ptr(), flat.nbytes) if flat.nbytes else b""
        dtype = str(tensor.dtype).removeprefix("torch.")
        lines.append(f"{name} {dtype} {list(tensor.shape)} {hashlib.sha256(content).hexdigest()}")
    return lines
