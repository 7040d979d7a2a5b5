"""The text of a random program while it is written: its variables, its numbers, and the statements of one operator over tensors.

What the statements are put together to is random_author's.
"""

import random
from dataclasses import dataclass
from typing import Any

from random_world import IN, OUT


@dataclass
class Tensor:
    """A variable of the program. `shape` holds sizes, and texts for those that depend on the event."""

    name: str
    shape: tuple[Any, ...]
    dtype: str = "float32"
    writable: bool = True


HEAD = """\
import json
import math
import os
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file

SCALES = {"x": 0.37, "y": 1.73, "z": 0.59}
"""


# expressions, divided by semicolons
FIELDS = """
event["scale"]; event["scale"]; event["alpha"] / event["r"]; event["alpha"]; event["n"]; (event["scale"] + 1); -event["scale"];
event["alpha"] / math.sqrt(event["r"]); event["scale"] * event["alpha"]; 1 / event["r"]; float(event["n"]); event.get("scale", 1.0);
event["alpha"] // event["r"]; 0.3 * event["scale"]; event["alpha"] * 0.7 / event["r"]; event.get("absent", 0.7);
SCALES[event["mode"]]; event["alpha"] - event["r"]
"""
SETTINGS = """
config["alpha"] / config["r"]; config["gain"]; config["alpha"]; config["gain"] * event["scale"]; config["alpha"] * 0.7 / config["r"]
"""
SCALED = """
{a} * {x}; {x} * {a}; {a} + {x}; {a} - {x}; {a} / ({x}); {x} - {a}; {a}.mul({x}); {a}.div({x}); {a}.clamp(-1, {x}); torch.tanh({a});
-{a}; {a}.abs(); {a}.pow(2)
"""
IN_PLACE = """
{a}.mul_({x}); {a}.add_({x}); {a} += {x}; {a} *= {x}; {a}[0] += {x}; {a}[:1] *= {x}; {a}.zero_(); {a}.fill_({x}); {a}[-1] = {x};
{a}.neg_(); {a}.detach().mul_({x}); {a}.data.add_({x}); {a}[...] = {x}
"""
IN_PLACE_ROWS = """
; {a}[:, 1:].mul_({x}); {a}.t()[0].add_({x}); {a}.t().mul_({x}); {a}[:, 0] = 0; {a}[0, 0] = {x}; {a}[:event['n']] += 1;
{a}[:, -1:].zero_(); {a}[1:] = {a}[:-1].clone()
"""
IN_PLACE_FIXED = "; {a}.T[1].copy_({a}.T[0])"  # raises for rank 1
IN_PLACE_COPY = "; {a}.copy_({b}); {a}.copy_({b}); {a}[:1].copy_({b}[:1]); {a}[:] = {b}; {a}.data.copy_({b})"
IN_PLACE_BOTH = "; {a}.add_({b}, alpha={x}); {a} += {b}; {a}.sub_({b}); {a}[1:] += {b}[1:]; {a}.addcmul_({b}, {b}, value={x})"


class Draft:
    """The lines so far, the variables in them, and what writes the next ones."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.lines: list[str] = []
        self.tensors: list[Tensor] = []
        self.numbers: list[str] = []
        self.indent = "    "
        self.count = 0
        self.config = False
        self.quiet = chance.random() < 0.7  # without what can only fall back

    # -- small parts

    def say(self, line: str) -> None:
        self.lines += [self.indent + part for part in line.split("\n")]

    def new(self, expression: str, shape: tuple[Any, ...], dtype: str = "float32", writable: bool = True) -> Tensor:
        made = Tensor(f"t{self.count}", shape, dtype, writable)
        self.count += 1
        self.say(f"{made.name} = {expression}")
        if self.indent == "    ":
            self.tensors.append(made)
        return made

    def pick(self, *conditions: Any, **wanted: Any) -> Tensor | None:
        fitting = [
            t for t in self.tensors if all(getattr(t, k) == v for k, v in wanted.items()) and all(c(t) for c in conditions)
        ]
        # the latest most often, so that chains grow
        return self.chance.choice(fitting[-4:] if self.chance.random() < 0.7 else fitting) if fitting else None

    def path(self, name: str) -> str:
        return self.chance.choice(
            [
                f"f\"adapters/{{event['adapter']}}/{name}\"",
                f'os.path.join("adapters", event["adapter"], "{name}")',
                f'Path("adapters") / event["adapter"] / "{name}"',
                f'event["folder"] + "/{name}"',
                f'"adapters/%s/{name}" % event["adapter"]',
                f'"adapters/{{}}/{name}".format(event["adapter"])',
                f'os.path.join(event["folder"], "{name}")',
            ]
        )

    def one_of(self, forms: str, **names: Any) -> str:
        """One of the forms, which semicolons divide, with the names filled in."""
        return self.chance.choice([form.strip() for form in forms.split(";")]).format(**names)

    def number(self) -> str:
        """An expression that gives a Python number."""
        chance = self.chance
        kind = chance.random()
        if kind < 0.45:
            return self.one_of(FIELDS)
        if kind < 0.6:
            self.read_config()
            return self.one_of(SETTINGS)
        if kind < 0.7 and self.numbers:
            return chance.choice(self.numbers)
        if kind < 0.76 and (sized := self.pick(lambda t: len(t.shape) == 2)):
            return self.one_of("{a}.shape[0]; 1 / {a}.shape[1]; len({a})", a=sized.name)
        if kind < 0.8 and not self.quiet and (read := self.pick(lambda t: len(t.shape) == 2)):
            return self.one_of("{a}.sum().item(); float({a}[0, 0]); {a}.tolist()[0][0]; float({a}.mean())", a=read.name)
        return self.one_of("0.5; 2.0; 2; -1.3; 3; 1e-3")

    def read_config(self) -> None:
        if self.config:
            return
        self.config = True
        indent, self.indent, lines, self.lines = self.indent, "    ", self.lines, []
        path = self.path("adapter.json")
        loaded = self.chance.choice(
            [f"json.loads(Path({path}).read_text())", f"json.load(open({path}))", f"json.loads(Path({path}).read_bytes())"]
        )
        self.say(f"config = {loaded}")
        self.lines, self.indent = self.lines + lines, indent

    # -- statements of one operator

    def product(self) -> None:
        pairs = [
            (a, b)
            for a in self.tensors
            for b in self.tensors
            if len(a.shape) == len(b.shape) == 2 and a.shape[1] == b.shape[0] and a.dtype == b.dtype
        ]
        if not pairs:
            return
        one, other = self.chance.choice(pairs)
        shape = (one.shape[0], other.shape[1])
        a, b, x = one.name, other.name, self.number()
        forms = """
        {a} @ {b}; {a} @ {b}; torch.mm({a}, {b}); {x} * ({a} @ {b}); ({b}.t() @ {a}.t()).t(); torch.einsum("ik,kj->ij", {a}, {b});
        torch.nn.functional.linear({a}, {b}.t())
        """
        if (added := self.pick(shape=shape, dtype=one.dtype)) is not None:
            forms += f"; torch.addmm({added.name}, {{a}}, {{b}}, alpha={{x}}); {added.name} + {{a}} @ {{b}} * {{x}}"
        made = self.new(self.one_of(forms, a=a, b=b, x=x), shape, one.dtype)
        target = self.pick(lambda t: t.writable, shape=shape, dtype=one.dtype)
        if target is not None and target is not made and self.chance.random() < 0.5:
            self.say(self.one_of("{a} += {b} * {x}; {a}.add_({b})", a=target.name, b=made.name, x=self.number()))

    def elementwise(self) -> None:
        if (one := self.pick()) is None or (other := self.pick(shape=one.shape, dtype=one.dtype)) is None:
            return
        forms = """
        {a} + {b}; {a} - {b}; {a} * {b}; torch.add({a}, {b}, alpha={x}); torch.maximum({a}, {b}); torch.lerp({a}, {b}, {x});
        torch.where({a} > {b}, {a}, {b}); {a}.sub({b})
        """
        self.new(self.one_of(forms, a=one.name, b=other.name, x=self.number()), one.shape, one.dtype)

    def scaled(self) -> None:
        if (one := self.pick()) is None:
            return
        self.new(self.one_of(SCALED, a=one.name, x=self.number()), one.shape, one.dtype)

    def in_place(self) -> None:
        one = self.pick(lambda t: t.writable)
        if one is None:
            return
        forms, b = IN_PLACE + (IN_PLACE_ROWS if len(one.shape) == 2 else ""), ""
        if len(one.shape) == 2 and one.shape[1] == IN:
            forms += IN_PLACE_FIXED
        if (other := self.pick(shape=one.shape)) is not None and other is not one:
            b = other.name
            forms += IN_PLACE_COPY + (IN_PLACE_BOTH if one.dtype == other.dtype else "")
        self.say(self.one_of(forms, a=one.name, b=b, x=self.number()))

    def view(self) -> None:
        one = self.pick(lambda t: len(t.shape) == 2)
        if one is None:
            return
        (rows, columns), a = one.shape, one.name
        whole = f"{rows}*{columns}"
        forms: list[tuple[str, tuple[Any, ...]]] = [
            (f"{a}.t()", (columns, rows)),
            (f"{a}.transpose(0, 1)", (columns, rows)),
            (f"{a}.permute(1, 0)", (columns, rows)),
            (f"{a}.reshape(-1)", (whole,)),
            (f"{a}.flatten()", (whole,)),
            (f"{a}[0]", (columns,)),
            (f"{a}.unsqueeze(0)", (1, *one.shape)),
            (f"{a}[:, 1:3]", (rows, 2)),
            (f"{a}.view_as({a})", one.shape),
            (f"{a}.detach()", one.shape),
            (f"{a}.data", one.shape),
            (f"{a}[:]", one.shape),
            (f"{a}.narrow(1, 0, 2)", (rows, 2)),
        ]
        if rows == OUT:
            forms += [
                (f"{a}[:2]", (2, columns)),
                (f"{a}[::2]", (2, columns)),
                (f"{a}.chunk(2)[1]", (2, columns)),
                (f"{a}.split(2)[0]", (2, columns)),
                (f"{a}.unbind(0)[2]", (columns,)),
            ]
        if columns == IN:
            forms += [(f"{a}[:, ::2]", (rows, OUT)), (f"{a}.chunk(4, dim=1)[1]", (rows, 2))]
        text, shape = self.chance.choice(forms)
        self.new(text, shape, one.dtype, one.writable)

    def copy(self) -> None:
        if (one := self.pick()) is not None:
            forms = """
            {a}.clone(); {a}.detach().clone(); {a}.contiguous(); torch.empty_like({a}).copy_({a}); torch.zeros_like({a}).add_({a});
            {a}.flip(0); torch.clone({a})
            """
            self.new(self.one_of(forms, a=one.name), one.shape, one.dtype)

    def cast(self) -> None:
        if (one := self.pick(lambda t: t.dtype in ("float32", "float16", "bfloat16", "float64"))) is not None:
            dtype = self.chance.choice(["float16", "bfloat16", "float64", "float32"])
            forms = "{a}.to(torch.{d}); {a}.to(dtype=torch.{d}, copy=True); {a}.type(torch.{d}); {a}.double().mul({x}).to(torch.{d})"
            self.new(self.one_of(forms, a=one.name, d=dtype, x=self.number()), one.shape, dtype)

    def joined(self) -> None:
        one = self.pick(lambda t: len(t.shape) == 2)
        if one is None or (other := self.pick(shape=one.shape, dtype=one.dtype)) is None:
            return
        a, b = one.name, other.name
        rows, columns = one.shape
        forms: list[tuple[str, tuple[Any, ...]]] = [
            (f"torch.cat([{a}, {b}])", (f"2*{rows}", columns)),
            (f"torch.cat([{a}, {b}], dim=1)", (rows, f"2*{columns}")),
            (f"torch.stack([{a}, {b}])", (2, rows, columns)),
            (f"{a}.repeat(2, 1)", (f"2*{rows}", columns)),
            (f"torch.stack([{a}, {b}]).mean(0)", one.shape),
        ]
        self.new(*self.chance.choice(forms), one.dtype)

    def factory(self) -> None:
        x = self.number()
        sized = self.pick(lambda t: t.shape[:1] == ("r",))
        forms: list[tuple[str, tuple[Any, ...]]] = [
            (f"torch.zeros({OUT}, {IN})", (OUT, IN)),
            (f"torch.full(({OUT}, {IN}), float({x}))", (OUT, IN)),
            (f"torch.arange({OUT * IN}.0).reshape({OUT}, {IN})", (OUT, IN)),
            (f"torch.eye({OUT})", (OUT, OUT)),
            (f"torch.linspace(0, 1, {OUT})", (OUT,)),
            (f"torch.empty({OUT}, {IN}).fill_({x})", (OUT, IN)),
        ]
        if sized is not None:
            size = f"{sized.name}.shape[0]"
            forms += [
                (f"torch.zeros({size}, {IN})", ("r", IN)),
                (f"torch.arange(float({size})).unsqueeze(1)", ("r", 1)),
                (f"torch.eye({size})", ("r", "r")),
                (f"torch.ones(({size}, {IN})).mul_({x})", ("r", IN)),
            ]
        if not self.quiet:
            forms += [
                (f"torch.tensor([{x}, 0.5, 1, 2], dtype=torch.float32)", (OUT,)),
                (f"torch.tensor([[0.5, 1.5]] * {OUT})", (OUT, 2)),
                (f"torch.tensor(float({x}))", ()),
            ]
        self.new(*self.chance.choice(forms))

    def reduced(self) -> None:
        if (one := self.pick(lambda t: len(t.shape) == 2 and t.dtype == "float32")) is not None:
            a, (rows, columns) = one.name, one.shape
            forms: list[tuple[str, tuple[Any, ...]]] = [
                (f"{a}.sum(0)", (columns,)),
                (f"{a}.mean(1)", (rows,)),
                (f"{a}.norm()", ()),
                (f"{a}.softmax(-1)", one.shape),
                (f"{a}.sort(dim=1).values", one.shape),
                (f"{a}.max(dim=0).values", (columns,)),
                (f"{a}.amax()", ()),
                (f"{a} / {a}.norm(dim=1, keepdim=True)", one.shape),
                (f"{a} - {a}.mean()", one.shape),
            ]
            self.new(*self.chance.choice(forms))
