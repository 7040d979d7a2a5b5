"""The code pack's content: bytecode that comes out byte for byte the same in every process."""

import _imp
import importlib.machinery
import importlib.util
import marshal
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import CodeType
from typing import Any

from tidalctl.artifacts.bundle.code_pack import PackedModule, file_of, head_digest, write_pack
from tidalctl.artifacts.bundle.manifest import CODE, PACK
from tidalctl.artifacts.distributions import source_digest
from tidalctl.artifacts.records import Function
from tidalctl.artifacts.trace.file import Trace
from tidalctl.artifacts.trace.records import Import
from tidalctl.compiler.code.installed_records import InstalledRecords
from tidalctl.compiler.code.pure_modules import pure_for_torch
from tidalctl.function.source_marks import marked_code

FIRST, LONGEST = 2**20, 2**23  # bytes of a segment: as many at least as it takes to be full


class _Loader(importlib.machinery.SourceFileLoader):
    """Takes valid bytecode where it is cached, as an import does, and leaves none where it isn't."""

    def set_data(self, path: str, data: Any, *, _mode: int = 0o666) -> None:
        """Nothing: a compile writes to the bundle alone."""


def pack_code(trace: Trace, partial: Path) -> str:
    """Write the code pack into the bundle, where it is not there yet. Returns the digest for the manifest, empty without modules."""
    path = partial / PACK
    if not path.exists():
        records = InstalledRecords()
        parts = list(_segments(_modules(trace, partial / CODE, records)))
        if not parts:
            return ""
        write_pack(path, importlib.util.MAGIC_NUMBER.hex(), sys.flags.optimize, parts, records.numbered)
    return head_digest(path)


def _segments(modules: Iterable[tuple[PackedModule, CodeType]]) -> Iterator[tuple[list[PackedModule], bytes]]:
    """Modules in their order, cut where they make a segment: a short one first, which is waited for, and longer ones behind it."""
    listed: list[PackedModule] = []
    codes: list[CodeType] = []
    length, full = 0, FIRST
    for module, code in modules:
        listed.append(module)
        codes.append(code)
        length += len(marshal.dumps(code, 2))
        if length >= full:
            yield listed, _steady(tuple(codes))
            listed, codes = [], []
            length, full = 0, min(full * 2, LONGEST)
    if listed:
        yield listed, _steady(tuple(codes))


def _modules(trace: Trace, code: Path, records: InstalledRecords) -> Iterator[tuple[PackedModule, CodeType]]:
    """What can be packed of the modules that a trace lists: plain ones whose file is where their name says."""
    root = Path(trace.header.root)
    pure = pure_for_torch(trace)
    for record in trace.of(Import):
        path = Path(record.file)
        package = path.name == "__init__.py"
        file = file_of(record.name, package)
        if not record.plain or not path.is_absolute() or not record.file.endswith(f"/{file}"):
            continue
        own = path == root / file and (code / file).is_file()
        try:
            source = (code / file if own else path).read_bytes()
            made = (
                _own_code(code / file, record.name, trace.header.function)
                if own
                else _Loader(record.name, record.file).get_code(record.name)
            )
        except (OSError, SyntaxError, ValueError, ImportError):  # gone or broken since the trace: the run will say so
            continue
        assert made is not None
        name = f"{CODE}/{file}" if own else file
        installed = not own and "site-packages" in path.parts
        module = PackedModule(
            name=record.name,
            file=name,
            package=package,
            size=len(source),
            digest=source_digest(source),
            record=-1 if own else records.number(record.file.removesuffix(file), file),
            late=installed and record.phase == "handler" and not record.aside,
            pure=installed and record.name in pure,
        )
        yield module, _copy(made, name)


def _own_code(path: Path, module: str, function: Function) -> CodeType:
    """Compile a module of the project, with the inits marked that `--init` names in it."""
    source = path.read_bytes()
    names = [name for owner, _, name in (init.partition(":") for init in function.inits) if owner == module]
    marked = marked_code(source, str(path), names, static=function.static) if names else None
    code: CodeType = marked or compile(source, str(path), "exec", dont_inherit=True)
    return code


def steady_bytes(code: CodeType, file: str) -> bytes:
    """Code as `marshal` writes it, with `file` for its path, the same in every process."""
    return _steady(_copy(code, file))


def _copy(code: CodeType, file: str) -> CodeType:
    """Code whose objects nobody else has, except for interned strings."""
    fresh: CodeType = marshal.loads(marshal.dumps(code, 2))  # version 2 writes no references
    _imp._fix_co_filename(fresh, file)  # type: ignore[attr-defined]
    return fresh


def _steady(fresh: CodeType | tuple[CodeType, ...]) -> bytes:
    """What `marshal` writes depends on how many references there are to each object, and so on all that a process did before.

    Hence fresh copies alone; and their strings are held here as well, wherever else they are.
    """
    held = list(_strings_of(fresh))
    data = marshal.dumps(fresh)
    del held
    return data


def _strings_of(code: CodeType | tuple[CodeType, ...]) -> list[str]:
    """Every string in code objects and the code objects below them."""
    found: list[str] = []
    waiting: list[Any] = [code]
    while waiting:
        value = waiting.pop()
        if isinstance(value, CodeType):
            found += value.co_names
            found += value.co_varnames
            found += value.co_cellvars
            found += value.co_freevars
            found += (value.co_name, value.co_qualname, value.co_filename)
            waiting.extend(value.co_consts)
        elif isinstance(value, str):
            found.append(value)
        elif isinstance(value, tuple | frozenset):
            waiting.extend(value)
    return found
