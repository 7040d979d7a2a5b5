"""The bundle's dynamic_init.py for a dynamic program: readable torch code that makes, from the event, what depends on it.

Generated text is the same for the same program. A program that can't be spelled raises ValueError, and the next strategy is tried.
Limits: two views of one entry of the template, explicit generators, operators that reshape in place, and operators that torch does not
know here are refused; parts of equal form are rolled up only where their constants are equal, too.
"""

import builtins
import json
import keyword
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tidalctl.artifacts.program import GENERATOR, Program, ProgramFile
from tidalctl.artifacts.weights import DTYPES
from tidalctl.compiler.script_blocks import Blocks, fill, loop_head, name_text
from tidalctl.compiler.script_groups import draws, families
from tidalctl.compiler.script_template import HEADER, MAIN, READ_TORCH, REST
from tidalctl.compiler.script_text import NAME, expression_text, expressions_in, identifier, names_in, quoted, shapes_in

KINDS = ("absent", "json", "other", "present", "safetensors", "torch")  # of any other file, all of it is as traced
_UNREAD = ("absent", "json", "other", "present")  # which hold no tensors
# what the generated functions that name files call their own things
_RESERVED = {
    *("event", "weights", "torch", "math", "safe_open", "found", "made", "reason", "paths", "tensors", "i"),
    *("read_json", "read_header", "read_torch", "disagreement", "later_agreements"),
}
_KEY = re.compile("(key|name)(_[0-9]+)?")
_SIZE = re.compile("[A-Za-z_0-9]+\\[\ue0020\ue003\\]\\.shape\\[[0-9]+\\]")


def program_source(function: str, init: str, program: Program, requirements: Sequence[str]) -> str:
    """The script's text. It imports the standard library alone until build() is called."""
    return _Script(program).text(function, init, requirements)


class _Script:
    def __init__(self, program: Program) -> None:
        self._program = program
        self._files = {file.name: file for file in program.files}
        if len(self._files) != len(program.files):
            raise ValueError("two files of one name")
        for file in program.files:
            if identifier(file.name) in ("event", "math", "shape", "int", "float"):
                raise ValueError(f"a file named {file.name}, which means something else in expressions")
            if file.kind not in KINDS:
                raise ValueError(f"a file of the kind {file.kind!r}")
        self._variables = _variables(self._files)
        self._json = {file.name: self._variables[file.name] for file in program.files if file.kind == "json"}
        self._reads = {read.value: read for read in program.reads}
        for read in program.reads:
            if read.file not in self._files or self._files[read.file].kind not in ("safetensors", "torch"):
                raise ValueError(f"{read.key} is read from {read.file!r}, which is no file of tensors")

    def text(self, function: str, init: str, requirements: Sequence[str]) -> str:
        program, files = self._program, sorted(self._program.files, key=lambda file: file.name)
        has_torch = any(file.kind == "torch" for file in files)
        early, late = self._agreements()
        uses_math = any("math." in line for line in early + late)
        free = not program.generator and any(draws(step) for step in program.steps)
        drawn = "\nIt draws random numbers, as init does, from wherever torch's generator stands." if free else ""
        names = {variable: name for name, variable in self._variables.items()}
        if any(variable != name for variable, name in names.items()):
            files = sorted(files, key=lambda file: self._variables[file.name])
        head = HEADER.format(
            requirements=json.dumps(list(requirements)),
            function=_prose(function),
            init=_prose(init),
            says=self._says(files),
            drawn=drawn,
            equal=_literal(program.event_equal),
            among=_literal(program.event_among),
            free=_literal({key: self._type(kind) for key, kind in program.event_free.items()}),
            forms=_literal(program.event_forms),
            kinds=_literal({self._variables[file.name]: file.kind for file in files}),
            numbers=_literal({self._variables[file.name]: file.free for file in files if file.free}),
            unordered=_literal({self._variables[file.name]: file.unordered for file in files if file.unordered}),
            orders=_literal({self._variables[file.name]: file.orders for file in files if file.orders}),
            rest=_literal({self._variables[file.name]: file.rest for file in files if file.rest}),
            beside=_literal({self._variables[file.name]: file.beside for file in files if file.beside}),
            paths=_block("{", [f"    {quoted(self._variables[file.name])}: {_path(file)}," for file in files], "}"),
            tensors=_indented(self._tensors(files)),
            leaves=_indented(self._leaves()),
            agreed="".join(f", {self._variables[file.name]}" for file in files if file.kind in ("json", "safetensors")),
            agreements=_indented(early),
            later=self._later(files, late) if late else "",
            math="import math\n" if uses_math else "",
            build="\n".join("    " + line if line else line for line in self._build(files, bool(late))),
        )
        source = head.rstrip("\n") + "\n" + REST + (READ_TORCH if has_torch else "") + MAIN
        compile(source, "dynamic_init.py", "exec", dont_inherit=True)
        return source

    @staticmethod
    def _type(kind: str) -> str:
        if kind not in ("str", "int", "float", "bool", "number", "list", "dict"):
            raise ValueError(f"{kind!r} is no JSON type")
        return kind

    def _says(self, files: Sequence[ProgramFile]) -> str:
        counts = (
            f"{_count(len(self._program.results), 'weight')}, of {_count(len(self._program.leaves), 'tensor')} of the template"
        )
        read = {file.name: sum(read.file == file.name for read in self._program.reads) for file in files}
        lines = [f"{counts} and of {_count(len(files), 'file')}{':' if files else '.'}"]
        for file in files:
            what = "numbers" if file.kind == "json" else "nothing"
            what = what if file.kind in _UNREAD else _count(read[file.name], "tensor")
            lines.append(f"  {self._variables[file.name]}: {what} from {_prose(_path(file))}")
        return "\n".join(lines)

    def _tensors(self, files: Sequence[ProgramFile]) -> list[str]:
        rows = []
        for file in files:
            read = {read.key: read for read in self._program.reads if read.file == file.name}
            if file.kind in _UNREAD:
                continue
            if file.kind == "safetensors" and (unlisted := read.keys() - set(file.keys)):
                raise ValueError(f"{min(unlisted)} is read from {file.name}, which does not list it")
            for key in sorted({*read, *(file.keys if file.kind == "safetensors" else ())}):
                what = "(None, None)"
                if key in read:
                    what = f"({quoted(self._dtype(file, read[key].dtype))}, {_tuple(read[key].shape)})"
                rows.append((f"found[{quoted(self._variables[file.name])}][{NAME % 0}] = {what}", (key,)))
        holds = ", ".join(
            f"{quoted(self._variables[file.name])}: {{}}" for file in files if file.kind in ("safetensors", "torch")
        )
        return [f"found = {{{holds}}}", *_rolled(rows), "return found"]

    @staticmethod
    def _dtype(file: ProgramFile, dtype: str) -> str:
        plain = dtype.removeprefix("torch.")
        if file.kind == "torch":
            return plain
        if plain not in DTYPES:
            raise ValueError(f"no safetensors file holds {dtype}")
        return DTYPES[plain][0]

    def _leaves(self) -> list[str]:
        rows = [
            (
                f"found[{NAME % 0}] = ({quoted(leaf.dtype.removeprefix('torch.'))}, {_tuple(leaf.shape)}, "
                f"{_tuple(leaf.stride)}, {int(leaf.offset)})",
                (leaf.name,),
            )
            for leaf in sorted(self._program.leaves, key=lambda leaf: leaf.name)
        ]
        if self._program.generator:
            import torch

            size = torch.get_rng_state().numel()
            rows.append((f'found[{NAME % 0}] = ("uint8", ({size},), (1,), 0)', (GENERATOR,)))
        return ["found = {}", *_rolled(rows), "return found"]

    def _agreements(self) -> tuple[list[str], list[str]]:
        """The lines that refusal() checks, and those that need a file which only torch can read."""
        asked = [
            (expression,) for step in self._program.steps for expression in expressions_in([step.arguments, step.keywords])
        ]
        early: list[tuple[str, tuple[str, ...]]] = []
        late: list[tuple[str, tuple[str, ...]]] = []
        names = {"event": "event", "math": "math", **self._json}
        for expressions in dict.fromkeys([*(agreement.expressions for agreement in self._program.agreements), *asked]):
            keys: list[str] = []

            def shape(value: int, dim: int, keys: list[str] = keys) -> str:
                read = self._reads[value]
                if read.key not in keys:
                    keys.append(read.key)
                return f"{self._variables[read.file]}[{NAME % keys.index(read.key)}].shape[{dim}]"

            shapes = [value for expression in expressions for value in shapes_in(expression)]
            if unknown := sorted(value for value in shapes if value not in self._reads):
                raise ValueError(f"the shape of value {unknown[0]}, which is not read from a file")
            said = [expression_text(expression, names, shape) for expression in expressions]
            if len(said) == 1 and _SIZE.fullmatch(said[0]):
                continue  # nothing can be wrong with it
            lines = late if any(self._files[self._reads[value].file].kind == "torch" for value in shapes) else early
            text = f"yield ({', '.join(said)}{',' if len(said) == 1 else ''})"
            if len(text) + sum(map(len, keys)) > 100:
                text = "yield (\n" + "".join(f"    {line},\n" for line in said) + ")"
            lines.append((text, tuple(keys)))
        return _rolled(early) or ["return ()"], _rolled(late)

    def _later(self, files: Sequence[ProgramFile], lines: Sequence[str]) -> str:
        names = "".join(f", {self._variables[file.name]}" for file in files if file.kind not in _UNREAD or file.kind == "json")
        says = '"""The same, for numbers that only torch can read."""'
        return f"\n\ndef later_agreements(event{names}):\n    {says}\n    {_indented(lines)}\n"

    def _build(self, files: Sequence[ProgramFile], late: bool) -> list[str]:
        steps = [expression for step in self._program.steps for expression in expressions_in([step.arguments, step.keywords])]
        named = {name for expression in steps for name in names_in(expression)}
        read = {read.file for read in self._program.reads}
        lines = ["import torch"]
        if any(file.kind == "safetensors" and file.name in read for file in files):
            lines.append("from safetensors import safe_open")
        lines += ["", "found = paths(event)"] if files else []
        told = ["event"]
        for file in files:
            name = self._variables[file.name]
            if file.kind == "torch" and (file.name in read or late):
                rest = f", REST[{quoted(name)}]" if file.rest else ""
                lines.append(f"{name} = read_torch(found[{quoted(name)}], tensors()[{quoted(name)}]{rest})")
            elif file.kind == "json" and file.name in named:
                lines.append(f"{name} = read_json(found[{quoted(name)}])")
            elif file.kind == "safetensors" and file.name in read:
                lines.append(f'{name} = safe_open(found[{quoted(name)}], framework="pt")')
            by_kind = {"json": f"read_json(found[{quoted(name)}])", "safetensors": f"read_header(found[{quoted(name)}])"}
            if file.kind not in _UNREAD or file.kind == "json":
                told.append(f"{name}={by_kind.get(file.kind, name)}")
        if late:
            lines += [f"if reason := disagreement(later_agreements({', '.join(told)})):", "    raise ValueError(reason)"]
        reserved = {*_RESERVED, *self._variables.values()}
        names = {"event": "event", "math": "math", **self._json}
        blocks = Blocks(self._program, self._variables, names, reserved).text()
        if self._program.generator:
            lines.append(f"torch.set_rng_state(weights({quoted(GENERATOR)}).clone())")
        lines += ["made = {}", "with torch.no_grad():", *(f"    {line}" for line in blocks or ["pass"]), "return made"]
        return lines


def _variables(files: Iterable[str]) -> dict[str, str]:
    """A variable for each file: its name, unless the script needs that for something else."""
    found: dict[str, str] = {}
    taken = {*_RESERVED, *keyword.kwlist, *keyword.softkwlist, *dir(builtins)}
    names = sorted(files)
    for name in names:
        variable = name
        while variable in taken or _KEY.fullmatch(variable) or (variable != name and variable in names):
            variable += "_file"
        taken.add(variable)
        found[name] = variable
    return found


def _path(file: ProgramFile) -> str:
    said = []
    for part in file.path:
        if isinstance(part, str):
            said.append(quoted(part))
        elif isinstance(part, list | tuple) and len(part) > 1 and part[0] == "event":
            if not all(type(key) in (str, int) for key in part[1:]):
                raise ValueError(f"{part!r} is no way into an event")
            said.append("event" + "".join(f"[{quoted(key) if isinstance(key, str) else key}]" for key in part[1:]))
        else:
            raise ValueError(f"{part!r} in the path of {file.name}")
    if not said:
        raise ValueError(f"{file.name} has no path")
    return " + ".join(said)


def _rolled(rows: Sequence[tuple[str, tuple[str, ...]]]) -> list[str]:
    """One line a row (its text with marks, and the names that go there), rolled into loops where only the names differ."""
    alike: dict[str, list[int]] = {}
    for index, (text, _) in enumerate(rows):
        alike.setdefault(text, []).append(index)
    blocks = []
    for text, indices in alike.items():
        for family in families([rows[index][1] for index in indices]):
            several = len(family.table[0]) > 1 if family.table else False
            columns = [f"key_{place + 1}" if several else "key" for place in range(family.patterns.count(None))]
            column = iter(columns)
            names = [name_text(pattern) if pattern is not None else next(column) for pattern in family.patterns]
            head = loop_head(family, columns)
            line = fill(text, (), names)
            indent = "    " if head else ""
            blocks.append((indices[min(family.members)], [*head, *(indent + part for part in line.split("\n"))]))
    return [line for _, lines in sorted(blocks) for line in lines]


def _literal(value: Any) -> str:
    """Dicts, in the order of their keys, and tuples of texts; those of more than a line have one item a line."""
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, Mapping):
        items, (start, end) = [f"{quoted(key)}: {_literal(value[key])}" for key in sorted(value)], "{}"
    else:
        items, (start, end) = [_literal(item) for item in value], "()"
    line = ", ".join(items) + ("," if start == "(" and len(items) == 1 else "")
    if len(line) < 100 and "\n" not in line:
        return start + line + end
    return "\n".join([start, *("    " + item.replace("\n", "\n    ") + "," for item in items), end])


def _tuple(sizes: Iterable[int | tuple[int, ...] | None]) -> str:
    return repr(tuple(size if size is None or isinstance(size, tuple) else int(size) for size in sizes))


def _block(start: str, lines: Sequence[str], end: str) -> str:
    return "\n    ".join([start, *lines, end]) if lines else start + end


def _indented(lines: Sequence[str]) -> str:
    return "\n    ".join(lines)


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def _prose(text: str) -> str:
    """Text that can stand in a docstring."""
    plain = text if text.isprintable() else repr(text)
    return plain.replace("\\", "\\\\").replace('"""', '\\"\\"\\"')
