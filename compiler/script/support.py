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


def event_mismatch(event: Any, equal: Mapping[str, str], whole: str | None = None) -> str | None:
    """Return which fields of the event are not as traced, or None.

    `equal` maps them to digests of their values (each in a list, since it may be absent); `whole` is the digest of the event where
    all of it must be as traced.
    """
    if whole is not None and digest(event) != whole:
        return "the event is not the traced one, and init may look at all of it"
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

# What a file that the event names must be. `kind` is safetensors, torch, json or other. Its content but for what tensors hold, and but
# for the numbers under the keys `free` (which maps them to their types), must have one of the digests `rest`. `tensors` maps the
# keys that are read, or have to be there, to dtype and shape (None: any); a size in a shape is a number, or one of several.
File = Mapping[str, Any]

TYPES = {"str": (str,), "int": (int,), "float": (float,), "number": (int, float)}
DIFFERS = {
    "json": "{path} differs from the traced ones",
    "safetensors": "the metadata of {path}, or the order of its tensors, are none of the traced ones",
    "torch": "what {path} holds besides its tensors is none of the traced ones",
    "other": "{path} is none of the traced ones",
}


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
    if file["kind"] == "json":
        known[name] = read_json(path)
        for key, kind in file["free"].items():
            if type(known[name].get(key)) not in TYPES[kind]:
                return f"{json.dumps(key)} in {path} is not a number of type {kind}"
    if file["kind"] == "safetensors":
        known[name] = read_header(path)
        if reason := tensors_mismatch(path, known[name], file["tensors"]):
            return reason
    if content_digest(path, file["kind"], file["free"]) in file["rest"]:
        return None
    return DIFFERS[file["kind"]].format(path=path) + (f" in more than {', '.join(file['free'])}" if file["free"] else "")


def read_json(path: str | os.PathLike[str]) -> Any:
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def content_digest(path: str | os.PathLike[str], kind: str, free: Iterable[str] = ()) -> str:
    """Return the digest of a file but for what its tensors hold, and for the values of its `free` numbers. Order counts."""
    if kind == "json":
        rest = repr({key: None if key in free else value for key, value in read_json(path).items()})
        return hashlib.sha256(rest.encode()).hexdigest()
    if kind == "safetensors":
        with open(path, "rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        metadata = header.pop("__metadata__", {})
        names = sorted(header, key=lambda name: header[name]["data_offsets"])  # load_file gives them in that order
        return hashlib.sha256(repr([sorted(metadata.items()), names]).encode()).hexdigest()
    if kind == "torch":
        import zipfile  # which few scripts need, and every start would import

        with zipfile.ZipFile(path) as archive:
            (pickled,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
            return hashlib.sha256(archive.read(pickled)).hexdigest()
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


def tensors_mismatch(path: str, stored: Mapping[str, Any], wanted: Mapping[str, tuple[Any, Any]]) -> str | None:
    """Return how the stored tensors (keys, dtypes, shapes) are not those wanted, or None."""
    if differing := sorted(stored.keys() ^ wanted.keys()):
        return f"{path} {'lacks' if differing[0] in wanted else 'also holds'} {differing[0]}"
    for key, (dtype, shape) in wanted.items():
        found = stored[key]
        if dtype is not None and found.dtype != dtype:
            return f"{key} in {path} is {found.dtype}, not {dtype}"
        if shape is not None and not (len(found.shape) == len(shape) and all(map(_fits, found.shape, shape))):
            return f"{key} in {path} has the shape {found.shape}, not {shape}"
    return None


def _fits(size: int, wanted: int | tuple[int, ...]) -> bool:
    return size in wanted if isinstance(wanted, tuple) else size == wanted


def disagreement(lines: Iterable[tuple[Any, ...]]) -> str | None:
    """Return why numbers that must be equal, type included, are not, or None."""
    try:
        for first, *others in lines:
            if any(type(other) is not type(first) or other != first for other in others):
                return f"numbers that were equal in the traces are not: {first}, {', '.join(map(str, others))}"
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        return f"a number can't be computed: {type(error).__name__}: {error}"
    return None


def open_files(files: Mapping[str, File], paths: Mapping[str, str]) -> tuple[dict[str, Any], Callable[[str, str], Any]]:
    """Return what a program computes numbers of (JSON, headers of safetensors files), and a function that reads a file's tensor."""
    known: dict[str, Any] = {}
    loaded: dict[str, Any] = {}
    for name, file in files.items():
        if file["kind"] == "json":
            known[name] = read_json(paths[name])
        elif file["kind"] == "torch":
            import torch

            loaded[name] = torch.load(paths[name], map_location="cpu", weights_only=True)
        elif file["kind"] == "safetensors":
            from safetensors import safe_open

            known[name] = read_header(paths[name])
            loaded[name] = safe_open(paths[name], framework="pt")

    def tensor(name: str, key: str) -> Any:
        return tensor_at(loaded[name], key) if files[name]["kind"] == "torch" else loaded[name].get_tensor(key)

    return known, tensor


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
