"""The bundle's dynamic_init.py for a dynamic program: torch code that makes, from the event, the weights that depend on it.

A program that can't be spelled raises ValueError, and the next strategy is tried. Limits: random draws, two views of one entry of the
template, operators that reshape in place, and operators that torch does not know here are refused.
"""

from collections.abc import Iterable, Mapping, Sequence

from tidalctl.artifacts.bundle.weights_file import DTYPES
from tidalctl.compiler.dynamic.program import Program, ProgramFile, ProgramRead
from tidalctl.compiler.script.body import Body
from tidalctl.compiler.script.conditions_only import dynamic_init_text, literal
from tidalctl.compiler.script.quoting import arguments_of, expression_text, expressions_in, identifier, quoted, shapes_in
from tidalctl.compiler.script.support import TYPES

KINDS = ("json", "other", "safetensors", "torch")
_TENSORS = ("safetensors", "torch")

_TORCH_AGREEMENTS = '''

def torch_agreements(event, files):
    """The same, for numbers that hang on files which only torch can read."""
{}
'''

_GENERATED = '''\
# sha256 of the fields of the event that must be as traced; JSON types of those that may be anything; what the files must be
EQUAL = {equal}
VARIED = {varied}
FILES = {files}
# dtype, shape, strides and offset of the template's tensors
LEAVES = {leaves}


def paths(event):
    return {paths}


def agreements(event, files):
    """Numbers that are computed from the event and the files. Those of one line were equal in every trace, and must be."""
{agreements}
{torch_agreements}

def files(event):
    """The paths that build() reads."""
    return path_list(paths, event)


def refusal(event):
    """Why build() does not make what init would make for the event, or None."""
    return program_mismatch(event, EQUAL, VARIED, FILES, paths, agreements)


def leaves():
    return LEAVES


def build(event, weights):
    """Return the weights that depend on the event, by name, for an event that refusal() has nothing against.

    `weights(name)` gives a tensor of the template, which is written to. Raise ValueError, before one is asked for, where a torch
    file is not as traced.
    """
    import torch

    files = open_files(FILES, paths(event){late})
    made = {{}}
    with torch.no_grad():
{build}
    return made


def answer(event):
    return weight_lines(build(event, stored_weights(os.path.dirname(os.path.abspath(__file__)), LEAVES)))
'''


def program_source(function: str, init: str, program: Program, requirements: Sequence[str]) -> str:
    """Return the script's text: the same for the same program. It imports the standard library alone until build() is called."""
    files = {file.name: file for file in sorted(program.files, key=lambda file: file.name)}
    if len(files) != len(program.files):
        raise ValueError("two files of one name")
    for file in program.files:
        if identifier(file.name) in ("event", "math", "shape", "int", "float"):
            raise ValueError(f"a file named {file.name}, which means something else in expressions")
        if file.kind not in KINDS:
            raise ValueError(f"a file of the kind {file.kind!r}")
    for read in program.reads:
        if read.file not in files or files[read.file].kind not in _TENSORS:
            raise ValueError(f"{read.key} is read from {read.file!r}, which is no file of tensors")
    for kind in (*program.event_varied.values(), *(kind for file in program.files for kind in file.free.values())):
        if kind not in TYPES:
            raise ValueError(f"{kind!r} is no JSON type")
    names = {"event": "event", "math": "math"}
    names |= {name: f"files[{quoted(name)}]" for name, file in files.items() if file.kind == "json"}
    early, late = _agreements(program, files, names)
    generated = _GENERATED.format(
        equal=literal(program.event_equal),
        varied=literal(program.event_varied),
        files=_mapping({name: _file(file, program.reads) for name, file in files.items()}),
        leaves=_leaves(program),
        paths=_mapping({name: _path(file) for name, file in files.items()}, 4),
        agreements=_indented(early or ["return ()"], 4),
        torch_agreements=_TORCH_AGREEMENTS.format(_indented(late, 4)) if late else "",
        late=", event, torch_agreements" if late else "",
        build=_indented(Body(program, names).lines() or ["pass"], 8),
    )
    if any("math." in expression for expression in _expressions(program)):
        generated = f"import math\n\n{generated}"
    says = [
        f"Makes what of the state of {function} depends on the event, as {init} does: {_count(len(program.results), 'weight')}, "
        f"of {_count(len(program.leaves), 'tensor')} of the template and of {_count(len(files), 'file')}.",
        *(f"{name}: {_path(file)}" for name, file in files.items()),
    ]
    alone = "prints each of these weights and the sha256 of its bytes"
    return dynamic_init_text(says, alone, generated, requirements, with_files=True)


def _file(file: ProgramFile, reads: Sequence[ProgramRead]) -> str:
    """Return the File that a file of the program must be."""
    given = [quoted(file.kind)]
    if file.rest:
        given.append(f"rest={literal(file.rest)}")
    if file.free:
        given.append(f"free={literal(file.free)}")
    if file.kind in _TENSORS:
        read = {
            read.key: f"({quoted(_dtype(file, read.dtype))}, {_tuple(read.shape)})" for read in reads if read.file == file.name
        }
        if file.kind == "safetensors" and (unlisted := read.keys() - set(file.keys)):
            raise ValueError(f"{min(unlisted)} is read from {file.name}, which does not list it")
        keys = {*read, *(file.keys if file.kind == "safetensors" else ())}
        given.append(f"tensors={_mapping({key: read.get(key, '(None, None)') for key in sorted(keys)})}")
    return "File(\n" + _indented([f"{text}," for text in given], 4) + "\n)"


def _dtype(file: ProgramFile, dtype: str) -> str:
    plain = dtype.removeprefix("torch.")
    if file.kind == "torch":
        return plain
    if plain not in DTYPES:
        raise ValueError(f"no safetensors file holds {dtype}")
    return DTYPES[plain][0]


def _leaves(program: Program) -> str:
    return _mapping(
        {
            leaf.name: f"({quoted(leaf.dtype.removeprefix('torch.'))}, {_tuple(leaf.shape)}, {_tuple(leaf.stride)}, {int(leaf.offset)})"
            for leaf in sorted(program.leaves, key=lambda leaf: leaf.name)
        }
    )


def _path(file: ProgramFile) -> str:
    """Return the expression that gives a file's path."""
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


def _expressions(program: Program) -> list[str]:
    steps = [expression for step in program.steps for expression in expressions_in(arguments_of(step))]
    return [*(expression for agreement in program.agreements for expression in agreement.expressions), *steps]


def _agreements(program: Program, files: Mapping[str, ProgramFile], names: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Return the lines that refusal() checks, and those that need a file which only torch can read.

    An operator's expression has a line of its own, so that one which can't be computed is refused early.
    """
    reads = {read.value: read for read in program.reads}

    def shape(value: int, dimension: int) -> str:
        if value not in reads:
            raise ValueError(f"the shape of value {value}, which is not read from a file")
        return f"files[{quoted(reads[value].file)}][{quoted(reads[value].key)}].shape[{dimension}]"

    asked = [(expression,) for step in program.steps for expression in expressions_in(arguments_of(step))]
    early: list[str] = []
    late: list[str] = []
    for expressions in dict.fromkeys([*(agreement.expressions for agreement in program.agreements), *asked]):
        said = [expression_text(expression, names, shape) for expression in expressions]
        shaped = [reads[value].file for expression in expressions for value in shapes_in(expression)]
        lines = late if any(files[name].kind == "torch" for name in shaped) else early
        short = f"yield ({', '.join(said)}{',' if len(said) == 1 else ''})"
        lines.append(short if len(short) < 120 else "yield (\n" + _indented([f"{text}," for text in said], 4) + "\n)")
    return early, late


def _mapping(items: Mapping[str, str], indent: int = 0) -> str:
    """Return a dict, of Python texts, with one item a line."""
    lines = [f"{quoted(key)}: {text}," for key, text in items.items()]
    return "\n".join(["{", *(_indented([line], indent + 4) for line in lines), " " * indent + "}"]) if lines else "{}"


def _indented(lines: Iterable[str], indent: int) -> str:
    return "\n".join(" " * indent + line.replace("\n", "\n" + " " * indent) for line in lines)


def _tuple(sizes: Iterable[int | tuple[int, ...]]) -> str:
    return repr(tuple(tuple(map(int, size)) if isinstance(size, tuple | list) else int(size) for size in sizes))


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"
