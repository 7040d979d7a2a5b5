"""Small projects drawn by hypothesis: where files lie, who reads what and when, variables, caches, globals, what the state holds.

A project is an `app.py` of a few parts, each in it or in a module of its own in a package. A part makes one value of the answer, so
that a difference names the part. Where the contract says that a part's value may differ in a bundle if `compile` says so (a secret is
not shipped; a file that only an untraced event opens), the part names the words to look for.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

HEAD = """\
import functools
import importlib.resources
import json
import linecache
import os
import threading
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file

import tidalctl

ROOT = {root}
"""
ROOTS = {
    "": ("Path(__file__).parent", "Path(os.path.dirname(os.path.abspath(__file__)))", "Path(__file__).resolve().parent"),
    "pack": ("Path(__file__).parents[1]", "Path(os.path.dirname(__file__), '..')", "Path(__file__).resolve().parent.parent"),
}
# Where a file lies, and the expression for it in the code. In all texts NUM is the part's number.
PLACES = {
    "beside": ("fNUM.json", "ROOT / 'fNUM.json'"),
    "folder": ("data/dNUM/f.json", "os.path.join(ROOT, 'data', 'dNUM', 'f.json')"),
    "package": ("pack/fNUM.json", "f'{ROOT}/pack/fNUM.json'"),
    "outside": ("OUTSIDE/oNUM/f.json", "Path('OUTSIDE/oNUM/f.json')"),
    "link": ("data/lNUM/f.json", "str(ROOT / 'data/lNUM/f.json')"),
    "secret": ("secrets/fNUM.json", "ROOT / 'secrets' / 'fNUM.json'"),
    "dotenv": (".envNUM", "ROOT / '.envNUM'"),
}
READERS = {
    "open": "with open(path) as file:\n        return file.read()",
    "pathlib": "return Path(path).read_text()",
    "json": "return json.loads(Path(path).read_bytes())['v']",
    "exists": "return open(path).read() if os.path.exists(path) else 'none'",
    "is_file": "return Path(path).read_text() if Path(path).is_file() else 'none'",
    "access": "return json.load(open(path)) if os.access(path, os.R_OK) else {'v': 'none'}",
    "tried": "try:\n        return Path(path).read_text()\n    except FileNotFoundError:\n        return 'none'",
    "first": "return next((Path(one).read_text() for one in (f'{path}.local', path) if os.path.isfile(one)), 'none')",
    "listdir": "return sorted(name for name in os.listdir(os.path.dirname(path)) if name.endswith('.json'))",
    "glob": "return sorted(found.name for found in Path(path).parent.glob('*.json'))",
    "walk": "return sorted(name for _, _, names in os.walk(os.path.dirname(path)) for name in names if '.json' in name)",
    "chosen": "names = os.listdir(os.path.dirname(path))\n    return open(path).read() if os.path.basename(path) in names else 'none'",
    "folder": "return os.path.isdir(os.path.dirname(path))",
    "size": "return os.path.getsize(path)",
    "descriptor": "number = os.open(path, os.O_RDONLY)\n    with open(number) as file:\n        return file.read()",
    "linecache": "return linecache.getline(str(path), 1)",
    "resources": "return importlib.resources.files('pack').joinpath(os.path.basename(path)).read_text()",
}  # fmt: skip
TOLERANT = ("exists", "is_file", "access", "tried", "first", "folder", "chosen")  # where the file may be missing, too
LISTING = ("listdir", "glob", "walk", "chosen")
CACHES = ("", "@functools.cache\n", "@functools.lru_cache(maxsize=None)\n")
NAMES = ("ann", "bob", "cat")  # that events may have
PHASES = (("handler",), ("init",), ("import",), ("init", "handler"), ("import", "handler"), ("import", "init"))
# How a variable comes to be before it is read, and how it is read.
SET_BEFORE = {
    "": "",
    "setdefault": "os.environ.setdefault('VARNUM', 'default')",
    "absent": "if 'VARNUM' not in os.environ:\n    os.environ['VARNUM'] = 'absent'",
    "assigned": "os.environ['VARNUM'] = 'assigned'",
    "path": "os.environ.setdefault('VARNUM', str(ROOT / 'data'))",
    "file": "for _line in open(ROOT / 'CFG') if (ROOT / 'CFG').exists() else ():\n    os.environ.setdefault(*_line.strip().split('='))",
}
ASKS = ("os.environ.get('VARNUM', 'none')", "os.getenv('VARNUM')", "os.environ['VARNUM'] if 'VARNUM' in os.environ else 'none'")
# What init does to globals, and what the handler sees of it.
GLOBALS = {
    "fill": ("GNUM = {}", "GNUM['x'] = [1, 2]", "GNUM"),
    "bind": ("GNUM = None", "global GNUM\n    GNUM = {'a': len(state)}", "GNUM"),
    "append": ("GNUM = [0]", "GNUM.append(len(state))", "GNUM"),
    "class": ("class GNUM:\n    value = 0", "GNUM.value = len(state) + 1", "GNUM.value"),
    "tensor": ("GNUM = None", "global GNUM\n    GNUM = torch.ones(2) * 3", "GNUM.tolist()"),
    "shared": (
        "GNUM = {}",
        "GNUM['t'] = state['gNUM'] = torch.arange(3.0)",
        "[GNUM['t'] is state['gNUM'], GNUM['t'].sum().item()]",
    ),
    "later": ("GNUM = {}", "GNUM.setdefault('loads', []).append(1)", "[GNUM['loads'], GNUM.setdefault('event', event['k'])]"),
    "sets": ("", "os.environ['GNUM'] = 'by init'", "os.environ.get('GNUM')"),
    "imports": ("", "import extra\n    extra.TABLE['NUM'] = NUM", "__import__('extra').TABLE['NUM']"),
    "seeds": ("", "torch.manual_seed(7)", "torch.rand(2).tolist()"),
}
# What the state holds, and what the handler makes of it. `path` is the part's file, read by read_NUM.
HELD = {
    "torch": ("torch.load(ROOT / 'data/tNUM.pt')['w']", "(value * event['x']).sum().item()"),
    "safetensors": ("load_file(ROOT / 'data/tNUM.safetensors')['w']", "(value * event['x']).sum().item()"),
    "linear": ("torch.nn.Linear(4, 4).requires_grad_(False).eval()", "value(torch.full((4,), event['x'])).tolist()"),
    "path": ("Path(PATH)", "read_NUM(value)"),
    "text": ("{'file': str(PATH)}", "read_NUM(value['file'])"),
    "object": ("Held_NUM(PATH)", "[value.more.item(), value.read()]"),
    "partial": ("functools.partial(read_NUM, PATH)", "value()"),
    "lambda": ("lambda: read_NUM(PATH)", "value()"),
    "lock": ("[threading.Lock(), read_NUM(PATH)]", "value[1]"),
}
HELD_CLASS = """
@dataclass
class Held_NUM:
    path: object

    def __post_init__(self):
        self.more = torch.ones(1)

    @functools.cached_property
    def content(self):
        return read_NUM(self.path)

    def read(self):
        return self.content
"""
# How load is called, and what of it the state holds.
CALLS = {
    "none": ("", "", "'none'"),
    "path": ("folder", "ROOT / 'model'", "(folder / 'ann.json').read_text()"),
    "text": ("folder", "str(ROOT / 'model')", "open(folder + '/ann.json').read()"),
    "json": ("settings, more=()", "{'width': 4, 'names': ['a', 'b']}, more=[1, None]", "[settings, more]"),
    "keyword": ("*, folder, n", "folder=ROOT / 'model', n=3", "n * (folder / 'bob.json').read_text()"),
    "field": ("name", "event['k']", "(ROOT / 'model' / (name + '.json')).read_text()"),
    "event": ("event", "event", "[event['k'], (ROOT / 'model' / 'ann.json').exists()]"),
}
KEPT = {
    "global": """
_state = None

def get(event):
    global _state
    if _state is None:
        _state = load(CALL)
    return _state
""",
    "dict": """
_states = {}

def get(event):
    if event['k'] not in _states:
        _states[event['k']] = load(CALL)
    return _states[event['k']]
""",
    "fresh": """
def get(event):
    return load(CALL)
""",
    "import": """
_state = load(CALL)

def get(event):
    return _state
""",
    "cache": """
@functools.cache
def once():
    return load(CALL)

def get(event):
    return once()
""",
}


@dataclass
class SmallProject:
    """Files by path (text, or the name of a format of tensors; of a link, what it points to), variables, events, and what to say to
    trace. `excuses` gives by part the words with which compile tells of a value that may differ in a moved bundle."""

    files: dict[str, str]
    links: dict[str, str]
    env: dict[str, str]
    other_env: dict[str, str | None]
    traced: list[dict[str, Any]]
    other: dict[str, Any]
    options: list[str]
    excuses: dict[str, list[str]] = field(default_factory=dict)

    def __repr__(self) -> str:  # hypothesis prints it for a failure
        texts = "".join(f"--- {name}\n{text}\n" for name, text in {**self.files, **self.links}.items())
        return f"{texts}--- env {self.env} then {self.other_env}\n--- traced {self.traced}, other {self.other}, {self.options}"


@st.composite
def small_projects(draw: Callable[[st.SearchStrategy[Any]], Any], parts: int = 4) -> SmallProject:
    """Draw a project of one to `parts` parts."""

    def one(choices: Any) -> Any:
        return draw(st.sampled_from(list(choices)))

    # what makes init run each time by its nature is drawn less often: most starts shall have a snapshot to compare
    call, kept = one([*CALLS, *(name for name in CALLS if name not in ("field", "event"))]), one(KEPT)
    if call in ("field", "event") and kept not in ("dict", "fresh"):
        kept = "dict"
    model = {f"model/{name}.json": f'{{"v": "model {name}"}}' for name in NAMES}
    made = SmallProject(model, {}, {}, {}, [{"k": NAMES[0], "x": 1.5}], {"k": NAMES[1], "x": 0.5}, [])
    if one([False, True]):
        made.traced.append(made.other)
        made.other = {**made.other, "k": NAMES[2]}
    if call in ("field", "event"):
        made.excuses["argument"] = ["model/ann.json is named by the event"]
    count = draw(st.integers(1, parts))
    texts: dict[str, list[str]] = {"app.py": []}
    for number in range(count):
        part = one([_read, _held, _variable, _global, _by_event])(one, made, number).replace("NUM", str(number))
        texts.setdefault(f"pack/part{number}.py" if one([False, True]) else "app.py", []).append(part)
    for name, found in texts.items():
        made.files[name] = HEAD.format(root=one(ROOTS["pack" if "/" in name else ""])) + "\n\n".join(found)
    made.files |= {"pack/__init__.py": "", "extra.py": "TABLE = {}\n"}
    mark = one([*["@tidalctl.init\n", "@tidalctl.init(static=True)\n", "--init", "--static"] * 2, ""])
    if call in ("field", "event"):
        mark = mark.replace("(static=True)", "").replace("--static", "--init")
    if mark.startswith("--"):
        made.options = ["--init", "app:load", *(["--static"] if mark == "--static" else [])]
    parameters, arguments, argument = CALLS[call]
    imports = [name[5:-3] for name in texts if name != "app.py"]
    made.files["app.py"] += (
        "\n"
        + "".join(f"from pack.{name} import init_{name[4:]}, handle_{name[4:]}\n" for name in imports)
        + f"\n{mark if mark.startswith('@') else ''}def load({parameters}):\n    state = {{'argument': {argument}}}\n"
        + "".join(f"    init_{number}(state)\n" for number in range(count))
        + f"    return state\n\n{KEPT[kept].replace('CALL', arguments)}\n"
        + "def handler(event, context):\n    state = get(event)\n    return {'argument': state['argument']"
        + "".join(f", '{number}': handle_{number}(state, event)" for number in range(count))
        + "}\n"
    )
    return made


One = Callable[[Any], Any]


def _file(one: One, made: SmallProject, number: int) -> tuple[str, str]:
    """Put a file somewhere; return the expression for its path, and the function that reads it."""
    place, reader = one(PLACES), one(READERS)
    if reader == "resources" or (place in ("secret", "dotenv") and reader not in TOLERANT):
        place = "package"
    name, path = (text.replace("NUM", str(number)) for text in PLACES[place])
    excuses = made.excuses.setdefault(str(number), [])
    if reader not in TOLERANT or one([True, True, False]):
        if place == "link":
            made.links[name] = f"OUTSIDE/linked{number}.json"
            name = made.links[name]
        made.files[name] = f'{{"v": "file {number}"}}\n'
    if place in ("secret", "dotenv"):
        excuses.append(f"{name} looks like a secret")
    if reader == "walk" and place == "beside":
        excuses.append("looks like a secret")
    return path, f"{one(CACHES)}def read_NUM(path):\n    {READERS[reader]}\n"


def _read(one: One, made: SmallProject, number: int) -> str:
    """A file that is read in some phases."""
    path, read = _file(one, made, number)
    phases, call = one(PHASES), f"read_NUM({path})"
    at_import, in_init, later = (call if phase in phases else "None" for phase in ("import", "init", "handler"))
    top = f"{read}\nINUM = {at_import}\n"
    return _part(top, f"state['rNUM'] = {in_init}", f"[INUM, state['rNUM'], {later}]")


def _held(one: One, made: SmallProject, number: int) -> str:
    """Something in the state: tensors, or what reads a file later."""
    value, use = HELD[one([*HELD, *[kind for kind in HELD if kind not in ("lambda", "lock")] * 2])]
    path, read = _file(one, made, number)
    for ending in ("pt", "safetensors"):
        if f".{ending}'" in value:
            made.files[f"data/t{number}.{ending}"] = ending
    init = f"torch.manual_seed(NUM)\n    state['hNUM'] = {value.replace('PATH', path)}"
    return _part(read + HELD_CLASS, init, use.replace("value", "state['hNUM']"))


def _variable(one: One, made: SmallProject, number: int) -> str:
    """A variable that is set by somebody, and read in some phases."""
    kind, ask, phases, file = one(SET_BEFORE), one(ASKS), one(PHASES), one(["plainNUM.cfg", ".envNUM"])
    before = one([None, "first"])
    after = one([before, before, before, None, "first", "second"])
    if before is not None:
        made.env[f"VAR{number}"] = before
    made.other_env[f"VAR{number}"] = after
    if kind == "file":
        made.files[file.replace("NUM", str(number))] = f"VAR{number}={one(['file', 'from a file'])}\n"
        if file.startswith("."):
            made.excuses[str(number)] = [f".env{number} looks like a secret"]
    if kind == "path":  # its place in the project counts
        ask = "os.path.basename(os.environ.get('VARNUM', 'none'))"
    at_import, in_init, later = (ask if phase in phases else "None" for phase in ("import", "init", "handler"))
    setting = SET_BEFORE[kind].replace("CFG", file)
    in_init = f"state['vNUM'] = {in_init}"
    if kind in ("setdefault", "assigned", "path") and one([False, True]):
        setting, in_init = "", f"{setting}\n    {in_init}"
    return _part(f"{setting}\nINUM = {at_import}\n", in_init, f"[INUM, state['vNUM'], {later}]")


def _global(one: One, made: SmallProject, number: int) -> str:
    """A global that init binds or fills, or another thing that it does besides."""
    top, init, use = GLOBALS[one(GLOBALS)]
    return _part(f"{top}\n", init, use)


def _by_event(one: One, made: SmallProject, number: int) -> str:
    """A file of the handler's that the event chooses. Of one that no traced event chose, `compile` tells."""
    reader = one([*TOLERANT, "open", "json", "size"])
    for name in one([NAMES, NAMES[:2], NAMES[1:2]]) if reader in TOLERANT else NAMES:
        made.files[f"words{number}/{name}.json"] = f'{{"v": "{name} of {number}"}}'
    if reader != "chosen":
        made.excuses[str(number)] = [f"words{number}/{name}.json is named by the event" for name in NAMES]
    path = one(["ROOT / 'wordsNUM' / f\"{event['k']}.json\"", "os.path.join(ROOT, 'wordsNUM', event['k'] + '.json')"])
    return _part(f"{one(CACHES)}def read_NUM(path):\n    {READERS[reader]}\n", "pass", f"read_NUM({path})")


def _part(top: str, init: str, use: str) -> str:
    return f"{top}\ndef init_NUM(state):\n    {init}\n\ndef handle_NUM(state, event):\n    return {use}\n"
