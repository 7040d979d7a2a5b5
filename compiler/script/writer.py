"""The bundle's dynamic_init.py: which events the bundle's state is for, and torch code that makes from the event what depends on it.

A program that can't be spelled raises ValueError, and the next strategy is tried. Limits: random draws, operators that reshape in
place, and operators that torch does not know here are refused.
"""

import json
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from pprint import pformat
from typing import Any

from tidalctl.artifacts.bundle.manifest import Guard
from tidalctl.artifacts.bundle.weights_file import DTYPES
from tidalctl.compiler.dynamic.program import Program, ProgramFile, ProgramRead
from tidalctl.compiler.script.body import build_lines, comment
from tidalctl.report.terminal import count_text

_SUPPORT = Path(__file__).with_name("support.py")
_FILES = "\n\n# ---- files:"  # where the part of the module begins that a bundle without a program does without

_CONDITIONS = '''\
# sha256 of the fields that init read, and of the event where init may have looked at all of it
EQUAL = {equal}
WHOLE = {whole}


def refusal(event):
    """Why the state for the event is not the bundle's, or None."""
    return {refusal}


def answer(event):
    return [{answer!r}]
'''

_PROGRAM = '''\
# sha256 of the fields of the event that must be as traced; JSON types of those that may be anything; what the files must be
EQUAL = {equal}
VARIED = {varied}
FILES = {files}
# dtype, shape, strides and offset of the template's tensors
LEAVES = {leaves}


def paths(event):
    return {{
{paths}
    }}


def agreements(event, files):
    """Numbers that are computed from the event and the files. Those of one line were equal in every trace, and must be."""
{agreements}


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

    `weights(name)` gives a tensor of the template, which is written to.
    """
    import torch

    files, tensor = open_files(FILES, paths(event))
    made = {{}}
    with torch.no_grad():
{build}
    return made


def answer(event):
    return weight_lines(build(event, stored_weights(os.path.dirname(os.path.abspath(__file__)), LEAVES)))
'''

_MAIN = """
if __name__ == "__main__":
    sys.exit(run_alone(sys.argv[1:], refusal, answer))
"""


def conditions_source(function: str, init: str, strategy: str, guard: Guard) -> str:
    """Return the text for a bundle without a dynamic program. It needs nothing but the standard library."""
    answer, refusal = "the snapshot is its state", "event_mismatch(event, EQUAL, WHOLE)"
    if strategy == "eager":
        why = f"{init} runs for every event" if init else "it calls no init"
        refusal, says = repr(f"there is no snapshot: {why}"), f"There is no snapshot of the state of {function}: {why}."
    elif strategy == "replay":
        answer = "init runs, with its reads answered from the bundle"
        says = (
            f"{init} runs for every event of {function}, and takes the tensors that it reads for all of them from the bundle."
        )
    else:
        seen = "all" if guard.event_whole else "nothing" if guard.static else "fields"
        says = f"{init} read {seen} of the event: the snapshot is the state of {function} for events that agree in that."
    generated = _CONDITIONS.format(
        equal=_literal(guard.event_reads), whole=_literal(guard.event_whole or None), refusal=refusal, answer=answer
    )
    return _text([says], f"says whether {answer}", _SUPPORT.read_text(encoding="utf-8").partition(_FILES)[0], generated)


def program_source(function: str, init: str, program: Program, requirements: Sequence[str]) -> str:
    """Return the script's text: the same for the same program. It imports the standard library alone until build() is called."""
    files = {file.name: file for file in sorted(program.files, key=lambda file: file.name)}
    paths = [f"{name!r}: {_path(file)}," for name, file in files.items()]
    agreements = [f"yield ({', '.join(expressions)},)" for expressions in program.agreements]
    generated = _PROGRAM.format(
        equal=_literal(program.event_equal),
        varied=_literal(program.event_varied),
        files=_literal({name: _file(file, program.reads) for name, file in files.items()}),
        leaves=_literal({leaf.name: (leaf.dtype, leaf.shape, leaf.stride, leaf.offset) for leaf in program.leaves}),
        paths=_indented(paths, 8),
        agreements=_indented(agreements or ["return ()"], 4),
        build=_indented(build_lines(program) or ["pass"], 8),
    )
    if "math." in generated:
        generated = f"import math\n\n{generated}"
    says = [
        f"Makes what of the state of {function} depends on the event, as {init} does: {count_text(len(program.results), 'weight')}, "
        f"of {count_text(len(program.leaves), 'tensor')} of the template and of {count_text(len(files), 'file')}.",
        *(f"{name}: {_path(file)}" for name, file in files.items()),
    ]
    alone = "prints each of these weights and the sha256 of its bytes"
    return _text(says, alone, _SUPPORT.read_text(encoding="utf-8"), generated, requirements)


def _text(says: Sequence[str], alone: str, support: str, generated: str, requirements: Sequence[str] = ()) -> str:
    """Return the whole file: what it `says` of itself and what it does `alone`, support.py, and the `generated` part."""
    head = [
        "# /// script",
        '# requires-python = ">=3.11"',
        f"# dependencies = {json.dumps(list(requirements))}",
        "# ///",
        *map(comment, says),
        f"""# Alone: python dynamic_init.py '{{"an": "event"}}' {alone}""",
        "# (exit code 0), or why init makes the state (1).",
    ]
    rule = "# ---- generated by tidalctl from the traces ----"
    text = "\n".join(head) + "\n" + support.rstrip("\n") + f"\n\n\n{rule}\n\n{generated}\n{_MAIN}"
    compile(text, "dynamic_init.py", "exec", dont_inherit=True)
    return text


def _file(file: ProgramFile, reads: Sequence[ProgramRead]) -> dict[str, Any]:
    """Return what a file of the program must be, as support.py compares it."""
    known: dict[str, Any] = {"kind": file.kind, "rest": file.rest, "free": file.free}
    if file.kind == "safetensors":
        known["tensors"] = dict.fromkeys(file.keys, (None, None))
        for read in reads:
            if read.file == file.name:
                if read.dtype not in DTYPES:
                    raise ValueError(f"no safetensors file holds {read.dtype}")
                known["tensors"][read.key] = (DTYPES[read.dtype][0], read.shape)
    return known


def _path(file: ProgramFile) -> str:
    """Return the expression that gives a file's path."""
    return " + ".join(repr(part) if isinstance(part, str) else f"event[{part[1]!r}]" for part in file.path)


def _literal(value: Any) -> str:
    """Return a value as Python, with the keys of dicts in order."""
    return pformat(value, width=120)


def _indented(lines: Iterable[str], indent: int) -> str:
    return textwrap.indent("\n".join(lines), " " * indent)
