"""What is measured: a bundle, the plain function that it was made from, and what this gave."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

import tidalctl
from tidalctl.artifacts import errors
from tidalctl.artifacts.bundle import IMAGE_FOLDER, MANIFEST
from tidalctl.artifacts.bundle.directory import open_bundle
from tidalctl.artifacts.bundle.manifest import Manifest
from tidalctl.artifacts.bundle.provenance import project_of, read_provenance
from tidalctl.bench.page_cache import cached_files, with_bytecode
from tidalctl.bench.processes import PlainFunction


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """What is benched: the bundle, the plain function it was made from, and the files whose place in memory matters."""

    path: Path
    shown: str
    manifest: Manifest
    plain: PlainFunction
    weights: tuple[Path, ...]  # what a start from the bundle streams
    read: tuple[Path, ...]  # what the plain function opens: checkpoints
    image: tuple[Path, ...]  # the files of the bundle's process image, where it has one
    everything: tuple[Path, ...]  # what a cold start must find on disk only


def open_subject(path: Path, argv: Sequence[str] = (), context: str = "") -> Subject:
    """Open the bundle and find its plain function, which is called with the arguments `argv`, as the bundle is.

    `context` is the JSON text of fields of the context.
    Raises TidalError where the function is no longer where it was traced, or is another one now.
    """
    manifest = open_bundle(path)
    bundle = path.absolute()
    provenance = read_provenance(bundle)
    root = project_of(provenance, manifest)
    cwd = Path(str(provenance.get("cwd", root)))
    plain = PlainFunction(
        root=str(root),
        cwd=str(cwd if cwd.is_dir() else root),
        source=manifest.function.source,
        module=manifest.function.module,
        handler=manifest.function.handler,
        argv=tuple(argv),
        context=context,
        encode=manifest.function.encode,
        shape=manifest.function.shape,
    )
    weights = dict.fromkeys(bundle / weight.file for weight in manifest.weights)
    parts = [bundle / name for name in (*manifest.files, MANIFEST)]
    read = cached_files(Path(name) for name in _strings(provenance, "read"))
    code = with_bytecode(Path(name) for name in _strings(provenance, "code_files"))
    image = tuple(sorted((bundle / IMAGE_FOLDER).glob("*")))
    return Subject(
        path=bundle,
        shown=str(path),
        manifest=manifest,
        plain=plain,
        weights=tuple(cached_files(weights) or cached_files(parts)),
        read=tuple(read or cached_files(code)),
        image=image,
        everything=tuple(cached_files([*parts, *image, *read, *code, *with_bytecode(_own_code())])),
    )


def _own_code() -> Iterable[Path]:
    """tidalctl's own modules: a cold start from a bundle has to read them too."""
    for module in (tidalctl.__file__, errors.__file__):  # in a checkout the rooms lie in folders of their own
        yield from Path(module).parent.rglob("*.py")


def _strings(provenance: dict[str, Any], key: str) -> list[str]:
    listed = provenance.get(key, [])
    return [value for value in listed if isinstance(value, str)] if isinstance(listed, list) else []


def comparable(output: Any) -> str:
    """An output as text that is equal when the outputs are: sorted keys; NaN equals itself."""
    return json.dumps(output, sort_keys=True, separators=(",", ":"))
