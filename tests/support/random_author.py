"""Random init programs as source text, with events for them: what they read, what they do with it, and the state they return.

Their fields may vary (`--vary`) where the program takes the same steps for any value of them. A limit that the author keeps out: an
operator whose result goes nowhere, and that raises for a size that no trace had (`B.T[1]` of an adapter of rank 1).
"""

import random
import re
from dataclasses import dataclass
from typing import Any

from random_draft import HEAD, Draft
from random_world import IN, LAYERS, OUT, Event, random_events

# expressions, divided by semicolons
CONDITIONS = """
event["mode"] == "x"; event["n"] > 2; event["flag"]; event.get("scale", 0) >= 1; "absent" in event; event["alpha"] == 16;
event["r"] in (2, 4); event["scale"] is None; event["mode"] in ("x", "y"); event["alpha"] / event["r"] > 3;
event["alpha"] > event["r"] * 4
"""


class Author(Draft):
    """Writes the text of one random program, as a module with a function load(event)."""

    def text(self) -> str:
        chance = self.chance
        if chance.random() < 0.2:
            self.say(f"torch.manual_seed({chance.randrange(5)})")
        self.read_base()
        self.read_adapter()
        for _ in range(chance.randint(2, 9)):
            self.statement()
        returned = self.returned()
        return "\n".join([HEAD, "", "def load(event):", *self.lines, f"    return {returned}", ""])

    def read_base(self) -> None:
        chance = self.chance
        layer = chance.randrange(LAYERS)
        kind = chance.random()
        if kind < 0.35:
            self.say('base = load_file("base.safetensors")')
            for key in chance.sample([f"layers.{i}.weight" for i in range(LAYERS)], chance.randint(1, LAYERS)):
                self.new(f'base["{key}"]', (OUT, IN))
            if chance.random() < 0.5:
                self.new(f'base["layers.{layer}.bias"]', (OUT,))
        elif kind < 0.6:
            self.say('with safe_open("base.safetensors", framework="pt") as file:')
            made = [
                self.new(f'    file.get_tensor("layers.{i}.weight")'.strip(), (OUT, IN))
                for i in range(chance.randint(1, LAYERS))
            ]
            self.lines[-len(made) :] = ["    " + line for line in self.lines[-len(made) :]]
        elif kind < 0.7:
            self.say('base = safe_open("base.safetensors", framework="pt")')
            self.new(f'base.get_slice("layers.{layer}.weight")[:, :]', (OUT, IN))
            self.new(f'base.get_slice("layers.{layer}.weight")[1:3]', (2, IN))
        elif kind < 0.9:
            self.say(f'saved = torch.load("base.pt"{chance.choice(["", ", mmap=True", ", weights_only=True"])})')
            self.new('saved["layers"]["w"]', (OUT, IN))
            self.new('saved["layers"]["b"]', (OUT,))
        else:
            self.new('torch.from_numpy(np.load("base.npy", mmap_mode="c"))', (OUT, IN))

    def read_adapter(self) -> None:
        chance = self.chance
        layer = chance.randrange(LAYERS)
        kind = chance.random()
        if kind < 0.4:
            self.say(f"adapter = load_file({self.path('adapter.safetensors')})")
            self.new(f'adapter["layers.{layer}.A"]', ("r", IN))
            self.new(f'adapter["layers.{layer}.B"]', (OUT, "r"))
            if chance.random() < 0.4:
                self.new('adapter["delta"]', (OUT, IN))
        elif kind < 0.65:
            self.say(f'adapter = safe_open({self.path("adapter.safetensors")}, framework="pt")')
            self.new(f'adapter.get_tensor("layers.{layer}.A")', ("r", IN))
            self.new(f'adapter.get_tensor("layers.{layer}.B")', (OUT, "r"))
            if chance.random() < 0.2:
                self.new('adapter.get_slice("delta")[:]', (OUT, IN))
            if chance.random() < 0.1:
                self.new('adapter.get_slice("delta")[:2]', (2, IN))
        elif kind < 0.85:
            self.say(f"adapter = torch.load({self.path('adapter.pt')}{chance.choice(['', ', mmap=True'])})")
            self.new('adapter["A"]', ("r", IN))
            self.new('adapter["B"]', (OUT, "r"))
            self.new('adapter["delta"]', (OUT, IN))
        elif kind < 0.9:
            self.new(f'load_file({self.path("adapter.safetensors")})["delta"]', (OUT, IN))
        elif kind < 0.95:
            path = self.path("adapter.pt")
            self.say(f"if os.path.exists({path}):")
            self.say(f'    delta = torch.load({path})["delta"]\nelse:\n    delta = torch.zeros({OUT}, {IN})')
            self.new("delta", (OUT, IN))

    def statement(self) -> None:
        kinds = [
            (self.product, 10),
            (self.elementwise, 8),
            (self.scaled, 12),
            (self.in_place, 12),
            (self.view, 7),
            (self.copy, 4),
            (self.cast, 4),
            (self.joined, 4),
            (self.factory, 4),
            (self.reduced, 3),
            (self.named_number, 3),
            (self.branch, 3),
            (self.loop, 3),
            (self.layers, 4),
            (self.drawn, 3),
            (self.module, 3),
            (self.detour, 0 if self.quiet else 2),
        ]
        (kind,) = self.chance.choices([kind for kind, _ in kinds], [weight for _, weight in kinds])
        kind()

    def named_number(self) -> None:
        name = f"x{len(self.numbers)}"
        expression = self.number()
        if self.indent == "    ":
            self.say(f"{name} = {expression}")
            self.numbers.append(name)

    def branch(self) -> None:
        if self.indent != "    ":
            return
        condition = self.one_of(CONDITIONS)
        if self.chance.random() < 0.3:
            self.read_config()
            forms = """config["kind"] == "lora"; config.get("more"); config["r"] > 4; "gain" in config; config["alpha"] == 16"""
            condition = self.one_of(forms)
        self.say(f"if {condition}:")
        self.body(self.chance.choice([self.in_place, self.in_place, self.scaled]))
        if self.chance.random() < 0.4:
            self.say("else:")
            self.body(self.in_place)

    def body(self, statement: Any) -> None:
        """A statement further in. What it names stays there."""
        self.indent += "    "
        before = len(self.lines)
        statement()
        if len(self.lines) == before:
            self.say("pass")
        self.indent = self.indent[4:]

    def loop(self) -> None:
        if self.indent == "    ":
            times = self.chance.choice(["2", "3", "2", 'event["n"]'])
            self.say(f"for _ in range({times}):")
            self.body(self.in_place)

    def layers(self) -> None:
        """A loop over layers, as a loader has it."""
        if self.indent != "    " or any("merged" in line for line in self.lines):
            return
        x, chance = self.number(), self.chance
        self.say(
            f'merged = {{}}\nsource = load_file({self.path("adapter.safetensors")})\nplain = load_file("base.safetensors")'
        )
        self.say(f"for i in range({LAYERS}):")
        keys = [f'source[f"layers.{{i}}.{k}"]' for k in "AB"]
        forms = [
            f"merged[i] = plain[f'layers.{{i}}.weight'] + {keys[1]} @ {keys[0]} * ({x})",
            f"merged[i] = plain[f'layers.{{i}}.weight']\n    merged[i] += ({x}) * ({keys[1]} @ {keys[0]})",
            f"merged[i] = torch.addmm(plain[f'layers.{{i}}.weight'], {keys[1]}, {keys[0]}, alpha={x})",
            f"merged[i] = torch.nn.Linear({IN}, {OUT}, bias=False)\n    with torch.no_grad():\n"
            f"        merged[i].weight.copy_(plain[f'layers.{{i}}.weight'] + {keys[1]} @ {keys[0]})",
        ]
        form = chance.choice(forms)
        self.say(f"    {form}")
        for i in range(LAYERS):
            self.new(f"merged[{i}]{'.weight.detach()' if 'Linear' in form else ''}", (OUT, IN))

    def drawn(self) -> None:
        chance = self.chance
        sized = self.pick(lambda t: t.shape == ("r", IN))
        other = self.pick(shape=(OUT, IN), dtype="float32")
        if self.quiet or chance.random() < 0.5:
            self.say(f"torch.manual_seed({chance.randrange(5)})")
        elif chance.random() < 0.2:
            self.say('torch.manual_seed(event["n"])')
        forms: list[tuple[str, tuple[Any, ...]]] = [
            (f"torch.randn({OUT}, {IN})", (OUT, IN)),
            (f"torch.empty({OUT}, {IN}).uniform_(-1, 1)", (OUT, IN)),
            (f"torch.randn({OUT}, {IN}, generator=torch.Generator().manual_seed(3))", (OUT, IN)),
            (f"torch.randperm({OUT}).float()", (OUT,)),
        ]
        if other is not None:
            forms += [
                (f"torch.empty({OUT}, {IN}).normal_().copy_({other.name})", (OUT, IN)),
                (f"torch.rand_like({other.name})", (OUT, IN)),
                (f"torch.nn.functional.dropout({other.name})", (OUT, IN)),
            ]
        if sized is not None:
            forms += [
                (f"torch.randn({sized.name}.shape[0], {IN})", ("r", IN)),
                (f"torch.empty_like({sized.name}).uniform_()", ("r", IN)),
                (f"torch.empty_like({sized.name}).normal_().copy_({sized.name})", ("r", IN)),
            ] * 2
        self.new(*chance.choice(forms))

    def module(self) -> None:
        other = self.pick(shape=(OUT, IN), dtype="float32")
        sized = self.pick(shape=("r", IN), dtype="float32")
        if other is None or self.indent != "    ":
            return
        linear = f"layer{self.count}"
        self.count += 1
        if sized is not None and self.chance.random() < 0.4:
            self.say(
                f"{linear} = torch.nn.Linear({IN}, {sized.name}.shape[0], bias=False)\nwith torch.no_grad():\n"
                f"    {linear}.weight.copy_({sized.name})"
            )
            self.new(f"{linear}.weight.data", ("r", IN))
            return
        forms = "torch.nn.Linear({i}, {o}, bias=False); torch.nn.utils.skip_init(torch.nn.Linear, {i}, {o}, bias=False)"
        made = self.one_of(forms, i=IN, o=OUT)
        filled = self.chance.choice(
            [
                f"with torch.no_grad():\n    {linear}.weight.copy_({other.name})",
                f"{linear}.weight = torch.nn.Parameter({other.name})",
                f'{linear}.load_state_dict({{"weight": {other.name}}})',
                f"{linear}.weight.data = {other.name}",
                f'{linear}.load_state_dict({{"weight": {other.name}}}, assign=True)',
            ]
        )
        self.say(f"{linear} = {made}\n{filled}")
        self.new(f"{linear}.weight.detach()", (OUT, IN))

    def detour(self) -> None:
        """Through NumPy, lists and memory, where no operator runs."""
        if (one := self.pick(lambda t: len(t.shape) == 2 and t.dtype == "float32")) is None:
            return
        names = {"a": one.name, "x": self.number()}
        forms = """
        torch.from_numpy({a}.numpy() * np.float32({x})); torch.tensor({a}.tolist()); torch.from_numpy({a}.numpy());
        torch.from_numpy(np.ones(tuple({a}.shape), np.float32)); torch.as_tensor(np.asarray({a}) + np.float32(1))
        """
        writes = "{a}.numpy()[0] += {x}; np.asarray({a})[:] = 0.25; {a}.detach().numpy()[:1] *= {x}"
        if one.writable and self.chance.random() < 0.3:
            self.say(self.one_of(writes, **names))
        else:
            self.new(self.one_of(forms, **names), one.shape)

    def returned(self) -> str:
        """The state: some of the tensors, as a dict, a list or a module, some of them twice."""
        chance = self.chance
        fixed = [tensor for tensor in self.tensors if "r" not in "".join(map(str, tensor.shape))]
        choice = fixed if fixed and chance.random() < 0.85 else self.tensors  # a state whose shapes differ has no program
        kept = choice[-2:] + chance.sample(choice, min(len(choice), chance.randint(0, 3)))
        names = list(dict.fromkeys(tensor.name for tensor in kept))
        kind = chance.random()
        if kind < 0.6:
            items = [f'"{name}": {name}' for name in names]
            if chance.random() < 0.3:
                items.append(f'"tied": {names[0]}')
            if chance.random() < 0.2:
                items.append(f'"view": {names[0]}[:1]' if self.tensors and kept[0].shape else '"view": None')
            if chance.random() < 0.12:
                items.append(f'"number": {self.number()}')
            if chance.random() < 0.1:
                items.append(f'"parameter": torch.nn.Parameter({names[-1]})' if kept[0].dtype != "int64" else '"none": None')
            return "{" + ", ".join(items) + "}"
        if kind < 0.75:
            return f"[{', '.join(names)}, ({names[0]},)]"
        self.say("model = torch.nn.Module()")
        for name in names:
            forms = 'model.register_buffer("{a}", {a}); model.{a} = torch.nn.Parameter({a}, requires_grad=False)'
            self.say(self.one_of(forms, a=name))
        return "model"


def random_program(chance: random.Random) -> "RandomProgram":
    source = Author(chance).text()
    traced, unseen = random_events(chance)
    return RandomProgram(source, traced, unseen, promised(source))


FIELDS = ("adapter", "folder", "scale", "alpha", "r", "n", "mode", "flag")
_STEERS = re.compile(r"^\s*(if|for) |SCALES\[event|//|manual_seed\(event")


def promised(source: str) -> tuple[str, ...]:
    """The fields for any value of which the program takes the same steps."""
    steering = [line for line in source.removeprefix(HEAD).split("\n") if _STEERS.search(line)]
    found = {key for line in steering for key in FIELDS if re.search(rf"event(\.get\(|\[)[\"']{key}[\"']", line)}
    if any("config" in line for line in steering):  # of the adapter
        found |= {"adapter", "folder"}
    return tuple(key for key in FIELDS if key not in found)


@dataclass
class RandomProgram:
    source: str
    traced: list[Event]
    unseen: list[Event]
    vary: tuple[str, ...] = FIELDS

    def __str__(self) -> str:
        return f"{self.source}\n# vary {self.vary}\n# traced {self.traced}\n# unseen {self.unseen}"
