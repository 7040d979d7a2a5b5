"""Blocks of a generated script: a commented block a group of weights, rolled into a loop where parts are the same up to names."""

import builtins
import keyword
import re
from collections.abc import Iterable, Mapping, Sequence

from tidalctl.artifacts.program import Program
from tidalctl.compiler.script_body import Body, Writer
from tidalctl.compiler.script_groups import Family, Part, families, free_values, interleaved, merged, parts_of, running
from tidalctl.compiler.script_steps import Speller
from tidalctl.compiler.script_text import quoted

MAX_PERIOD = 64  # parts in one turn of a loop whose draws must keep their order
_MARK = re.compile("\ue000([0-9]+)\ue001|\ue002([0-9]+)\ue003")


def loop_head(family: Family, variables: Sequence[str]) -> list[str]:
    """`for …:`, or nothing where the family is one row."""
    if family.table:
        rows = [row[0] if len(row) == 1 else row for row in family.table]
        said = [quoted(row) if isinstance(row, str) else "(" + ", ".join(map(quoted, row)) + ")" for row in rows]
        return [f"for {', '.join(variables)} in (", *(f"    {row}," for row in said), "):"]
    if len(family.members) == 1:
        return []
    return [f"for i in {numbers_text(family.numbers)}:"] if family.numbers else [f"for _ in range({len(family.members)}):"]


def numbers_text(numbers: Sequence[int]) -> str:
    first, step = numbers[0], numbers[1] - numbers[0] if len(numbers) > 1 else 1
    if len(numbers) > 2 and step and tuple(range(first, first + step * len(numbers), step)) == tuple(numbers):
        end = first + step * len(numbers) if step != 1 else numbers[-1] + 1
        return f"range({end})" if (first, step) == (0, 1) else f"range({first}, {end}{'' if step == 1 else f', {step}'})"
    return (
        "range(2)"
        if tuple(numbers) == (0, 1)
        else "(" + ", ".join(map(str, numbers)) + ("," if len(numbers) == 1 else "") + ")"
    )


def name_text(pattern: tuple[str, ...]) -> str:
    """A literal, with the running number put in."""
    if len(pattern) == 1:
        return quoted(pattern[0])
    # the pieces are quoted as one text, so that they agree in the kind of quote
    literal = quoted("\ue000".join(piece.replace("{", "{{").replace("}", "}}") for piece in pattern))
    return "f" + literal.replace(r"\ue000", "{i}")


def fill(line: str, variables: Sequence[str], names: Sequence[str]) -> str:
    return _MARK.sub(lambda mark: variables[int(mark[1])] if mark[1] else names[int(mark[2])], line)


class Blocks:
    """Writes the blocks of a program. `files` maps the program's file names to the variables that hold them."""

    def __init__(
        self, program: Program, files: Mapping[str, str], expressions: Mapping[str, str], reserved: Iterable[str]
    ) -> None:
        self._program, self._files, self._expressions = program, files, expressions
        self._reserved = {*reserved, *files.values(), *dir(builtins), *keyword.kwlist, *keyword.softkwlist, "i"}
        self._reads = {read.value: read for read in program.reads}
        self._leaves = {leaf.value: leaf for leaf in program.leaves}
        self._free = free_values(program)
        self._torch = {file.name for file in program.files if file.kind == "torch"}

    def text(self) -> list[str]:
        parts = parts_of(self._program)
        lines: list[str] = []
        only_draw = [part for part in parts if not part.results]
        drawing = sorted((part for part in parts if part.draws), key=lambda part: part.draws)
        if any(part.results for part in drawing):
            lines += self._in_order([*(part for part in only_draw if not part.draws), *drawing], "in the order of init's draws")
            rest = [part for part in parts if part.results and not part.draws]
        else:
            lines += self._in_order(only_draw, "the random generator, left as init leaves it")
            rest = [part for part in parts if part.results]
        bodies = [self._body([part]) for part in rest]
        alike: dict[tuple[str, ...], list[Body]] = {}
        for body in bodies:
            alike.setdefault(body.lines, []).append(body)
        blocks = [
            (bodies.index(group[min(family.members)]), [group[index] for index in family.members], family)
            for group in alike.values()
            for family in families([body.names for body in group])
        ]
        for _, turns, family in sorted(blocks, key=lambda block: block[0]):
            lines += self._block(turns, family)
        return lines

    def _in_order(self, parts: list[Part], says: str) -> list[str]:
        """Blocks for parts whose order counts: loops over neighbours alone, and no loop where draws of parts alternate."""
        if not parts:
            return []
        if interleaved(parts):
            parts = [merged(parts)]
        lines, place = [f"# {says}"], 0
        bodies = [self._body([part]) for part in parts]
        while place < len(parts):
            period, turns = self._longest(bodies, place)
            count = period * turns
            groups = [self._body(parts[start : start + period]) for start in range(place, place + count, period)]
            rolled = running([body.names for body in groups])
            if rolled is None or len({body.lines for body in groups}) > 1:  # parts of one turn share a read, say
                groups, count = [bodies[place]], 1
                rolled = Family(members=(0,), patterns=tuple((text,) for text in bodies[place].names))
            lines += self._block(groups, rolled)
            place += count
        return lines

    def _longest(self, bodies: Sequence[Body], place: int) -> tuple[int, int]:
        """How many parts make one turn from here on, and how many turns follow, so that most parts are covered."""
        best = (1, 1)
        for period in range(1, min(MAX_PERIOD, (len(bodies) - place) // 2) + 1):
            turns, rows = 1, [_names(bodies[place : place + period])]
            while True:
                here = bodies[place + turns * period : place + (turns + 1) * period]
                if [body.lines for body in here] != [body.lines for body in bodies[place : place + period]]:
                    break
                rows.append(_names(here))
                if running([rows[0], rows[-1]]) is None or running(rows) is None:
                    break
                turns += 1
            if turns > 1 and period * turns > best[0] * best[1]:
                best = (period, turns)
        return best

    def _block(self, turns: Sequence[Body], family: Family) -> list[str]:
        body = turns[0]
        made = sum(len(turn.results) for turn in turns)
        variables, columns = self._variables(turns, family)
        column = iter(columns)
        names = [name_text(pattern) if pattern is not None else next(column) for pattern in family.patterns]
        head = loop_head(family, columns)
        lines = []
        if made:
            pattern = family.patterns[body.results[0]] or (body.names[body.results[0]],)
            more = " and so on" if family.table else f" and {len(body.results) - 1} more" if len(body.results) > 1 else ""
            runs = f" for i in {numbers_text(family.numbers)}" if family.numbers else ""
            lines.append(f"# {made} weight{'s' if made > 1 else ''}: {quoted('{i}'.join(pattern))}{more}{runs}")
        texts = [fill(line, variables, names) for line in body.lines]
        early = [flag and bool(head) and _constant(line, family) for line, flag in zip(body.lines, body.early, strict=True)]
        lines += [text for text, first_ in zip(texts, early, strict=True) if first_]
        indent = "    " if head else ""
        lines += head + [indent + text for text, first_ in zip(texts, early, strict=True) if not first_]
        return lines

    def _variables(self, turns: Sequence[Body], family: Family) -> tuple[list[str], list[str]]:
        """A name for each variable, and for each column of the table."""
        taken = set(self._reserved)
        body, variables, columns = turns[0], [], []
        for place, pattern in enumerate(family.patterns):
            if pattern is None:
                columns.append(_unused("key" if place in body.keys else "name", taken))
        for hint in body.hints:
            word = hint if isinstance(hint, str) else _common([turn.names[hint] for turn in turns])
            variables.append(_unused(word, taken))
        return variables, columns

    def _body(self, parts: Sequence[Part]) -> Body:
        writer = Writer(self._source, self._free)
        dtypes = {read.value: read.dtype.removeprefix("torch.") for read in self._program.reads}
        dtypes |= {leaf.value: leaf.dtype.removeprefix("torch.") for leaf in self._program.leaves}
        speller = Speller(self._expressions, writer.variable, dtypes)
        for part in parts:
            for index in part.steps:
                writer.step(self._program.steps[index], speller)
            for name in part.results:
                writer.result(name, self._program.results[name])
        return writer.body()

    def _source(self, value: int) -> tuple[str, str, bool] | None:
        """How a read or a leaf is fetched: the text with %s for the name, the name, and whether that is a key."""
        if value in self._leaves:
            return "weights(%s)", self._leaves[value].name, False
        if value in self._reads:
            read = self._reads[value]
            variable = self._files[read.file]
            return f"{variable}[%s]" if read.file in self._torch else f"{variable}.get_tensor(%s)", read.key, True
        return None


def _names(bodies: Sequence[Body]) -> tuple[str, ...]:
    return tuple(name for body in bodies for name in body.names)


def _constant(line: str, family: Family) -> bool:
    """Whether a line fetches the same in every turn."""
    places = [int(mark[2]) for mark in _MARK.finditer(line) if mark[2]]
    patterns = [family.patterns[place] for place in places]
    return all(pattern is not None and len(pattern) == 1 for pattern in patterns)


def _unused(word: str, taken: set[str]) -> str:
    name = f"{word}1" if word == "t" else word
    number = 2
    while name in taken:
        name, number = f"{word}{number}" if word == "t" else f"{word}_{number}", number + 1
    taken.add(name)
    return name


def _common(names: Sequence[str]) -> str:
    """A variable's name from the last parts that all of these names have in common."""
    found: list[str] = []
    for parts in zip(*(reversed(re.split(r"[^A-Za-z0-9_]+", name)) for name in names), strict=False):
        if len(set(parts)) > 1 or len(found) == 2:
            break
        if parts[0] and not parts[0].isdigit():
            found.insert(0, parts[0])
    word = re.sub(r"\W+", "_", "_".join(found), flags=re.ASCII).strip("_")
    if not word:
        return "tensor"
    return f"n{word}" if word[0].isdigit() else word
