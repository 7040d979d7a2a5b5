"""Small modules drawn by hypothesis: what stands at their top builds, reads, logs and mutates; or functions, methods and threads load.

Each statement is a part of the module with a number NUM, and gives a part of the answer, so that a difference names the statement.
`wOLD` are the weights of an earlier part.
"""

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st
from small_projects import SmallProject

HEAD = """\
import json
import logging
import os
import threading
from pathlib import Path

import torch

ROOT = Path(__file__).parent
LOG = []
"""
# The statements, and what the handler says of them. SIZE is the number of elements of weights.
STATEMENTS = {
    "weights": ("wNUM = torch.arange(SIZE, dtype=torch.float32) * NUM", "wNUM[:4].tolist()"),
    "seeded": ("torch.manual_seed(NUM)\nwNUM = torch.rand(SIZE)", "wNUM[:4].tolist()"),
    "layer": (
        "torch.manual_seed(NUM)\nlNUM = torch.nn.Linear(WIDTH, WIDTH)\nwNUM = lNUM.weight.data.view(-1)",
        "lNUM.weight[0, :4].tolist()",
    ),
    "annotated": ("wNUM: torch.Tensor = torch.ones(SIZE)", "[wNUM[:2].tolist(), sorted(__annotations__)]"),
    "plain": ("sNUM = {'a': [NUM, None], 'b': ('x', 2.5)}", "sNUM"),
    "read": ("rNUM = json.loads((ROOT / 'fNUM.json').read_text())", "rNUM"),
    "print": ("print('loading NUM')", "None"),
    "log": ("logging.getLogger('app').info('NUM')\nLOG.append(NUM)", "LOG"),
    "mutate": ("wOLD[NUM] = 7.0", "wOLD[NUM].item()"),
    "scale": ("wOLD.mul_(2)", "wOLD[:4].tolist()"),
    "alias": ("aNUM = wOLD", "aNUM is wOLD"),
    "view": ("vNUM = wOLD[2:6]", "[vNUM.tolist(), vNUM.data_ptr() - wOLD.data_ptr()]"),
    "held": ("hNUM = {'w': wOLD, 'again': [wOLD]}", "[hNUM['w'] is wOLD, hNUM['again'][0] is hNUM['w']]"),
    "loop": ("for iNUM in range(3):\n    wOLD[iNUM] = iNUM + NUM", "[iNUM, wOLD[:4].tolist()]"),
    "with": ("with torch.no_grad():\n    wOLD.add_(1)", "wOLD[:4].tolist()"),
    "branch": ("if len(LOG) % 2 == 0:\n    bNUM = 'even'\nelse:\n    bNUM = 'odd'", "bNUM"),
    "gone": ("tNUM = torch.ones(SIZE)\nwOLD.add_(tNUM)\ndel tNUM", "['tNUM' in globals(), wOLD[:4].tolist()]"),
    "function": ("def fNUM(x, more=[NUM]):\n    return [x, *more, wOLD[0].item()]", "fNUM(1)"),
    "class": (
        "class CNUM:\n    value = NUM\n\n    def twice(self):\n        return self.value * 2",
        "[CNUM.value, CNUM().twice()]",
    ),
    "object": (
        "class ONUM:\n    made = 0\n\n    def __init__(self, w):\n        ONUM.made += 1\n        self.w = w\n\noNUM = ONUM(wOLD)",
        "[oNUM.w is wOLD, ONUM.made, type(oNUM) is ONUM]",
    ),
    "thread": (
        "def runNUM():\n    global wNUM\n    wNUM = torch.full((SIZE,), 3.0)\n\n"
        "jobNUM = threading.Thread(target=runNUM)\njobNUM.start()\njobNUM.join()\ndel jobNUM",
        "wNUM[:4].tolist()",
    ),
    "import": ("import collections as cNUM", "cNUM.__name__"),
    "guarded": ("try:\n    import nowhere_to_be_found as gNUM\nexcept ImportError:\n    gNUM = None", "gNUM is None"),
    "variable": ("os.environ.setdefault('SMALL_NUM', 'set')\neNUM = os.environ['SMALL_NUM']", "eNUM"),
    "lambda": ("kNUM = lambda x: x + NUM", "kNUM(1)"),
    "lock": ("pNUM = threading.Lock()", "pNUM.locked()"),
    "tuple": ("(xNUM, *yNUM), zNUM = [NUM, 2, 3], wOLD", "[xNUM, yNUM, zNUM is wOLD]"),
    "walrus": ("[qNUM := NUM, 1]", "qNUM"),
    "again": ("LOG = [*LOG, NUM]", "LOG"),
}
# what no snapshot holds is drawn less often
DRAWN = (*[kind for kind in STATEMENTS if kind not in ("lambda", "lock")] * 3, "lambda", "lock")
MAKE_WEIGHTS = ("weights", "seeded", "annotated", "thread", "layer")
# How a function builds the state when the handler asks, and what calls it.
LOADERS = {
    "function": ("""
def load():
    BODY
    return state
""", "load()"),
    "named": ("""
_made = {}

def load(name):
    BODY
    state['name'] = name
    return state

def get(name):
    if name not in _made:
        _made[name] = load(name)
    return _made[name]
""", "get('base')"),
    "method": ("""
class Loader:
    def setup(self):
        BODY
        self.state = state

it = Loader()

def get():
    if not hasattr(it, 'state'):
        it.setup()
    return it.state
""", "get()"),
    "thread": ("""
ready = []

def load():
    BODY
    ready.append(state)
    return state

def get():
    if not ready:
        job = threading.Thread(target=load)
        job.start()
        job.join()
    return ready[0]
""", "get()"),
    "class": ("""
class Net:
    def __init__(self):
        BODY
        self.state = state

nets = []

def get():
    if not nets:
        nets.append(Net())
    return nets[0].state
""", "get()"),
}  # fmt: skip
BODIES = (
    "torch.manual_seed(1)\n    state = {'net': torch.nn.Linear(512, 600), 'n': 1}",
    "state = {'net': torch.nn.Linear(512, 600), 'n': 2}\n    torch.nn.init.constant_(state['net'].weight, 0.5)\n"
    "    torch.nn.init.zeros_(state['net'].bias)",
    "state = {'net': torch.nn.Linear(512, 600).requires_grad_(False), 'f': json.loads((ROOT / 'f0.json').read_text())}\n"
    "    for one in state['net'].parameters():\n        one.fill_(0.25)",
)

# How a function has a state for each name that the event gives, and what the handler says of what it keeps.
NAMED = {
    "fresh": ("MARK\ndef load(name):\n    return make(name)", "None"),
    "dictionary": (
        "made = {}\n\nMARK\ndef load(name):\n    if name not in made:\n        made[name] = make(name)\n    return made[name]",
        "sorted(made)",
    ),
    "one": (
        "made = {}\n\nMARK\ndef load(name):\n    if name not in made:\n        made.clear()\n        made[name] = make(name)\n"
        "    return made[name]",
        "sorted(made)",
    ),
    "latest": ("latest = ''\n\nMARK\ndef load(name):\n    global latest\n    latest = name\n    return make(name)", "latest"),
    "cache": ("MARK\n@functools.cache\ndef load(name):\n    return make(name)", "load('a') is load('a')"),
    "small cache": ("MARK\n@functools.lru_cache(maxsize=1)\ndef load(name):\n    return make(name)", "load.__name__"),
    "first": (
        "first = None\n\nMARK\ndef load(name):\n    global first\n    if first is None:\n        first = make(name)\n    return first",
        "first['name']",
    ),
    "counted": (
        "count = 0\n\nMARK\ndef load(name):\n    global count\n    count = len(LOG)\n    return make(name)",
        "count",
    ),
    "words": (
        "MARK\ndef words():\n    return {'a': 1, 'b': [2]}\n\nMARK\ndef load(name):\n    return {**make(name), 'words': words()}",
        "words()",
    ),
}
MAKE = """
def make(name):
    torch.manual_seed(ord(name) if PLAIN else 1)
    shared = torch.nn.Linear(512, 40)
    torch.manual_seed(ord(name))
    return {'net': torch.nn.Sequential(shared, torch.nn.Linear(40, 600)), 'name': name}
"""


@st.composite
def named_states(draw: Callable[[st.SearchStrategy[Any]], Any]) -> tuple[str, list[dict[str, Any]], dict[str, Any]]:
    """Draw a module whose init is asked for states by name: its text, the traced events and another one."""
    load, said = NAMED[draw(st.sampled_from(sorted(NAMED)))]
    mark = f"@tidalctl.init(static={draw(st.booleans())})"
    names = st.lists(st.sampled_from("ab"), min_size=1, max_size=2)
    traced = [{"k": "a", "x": 1.5, "names": draw(names)} for _ in range(draw(st.integers(1, 2)))]
    known = sorted({name for event in traced for name in event["names"]})
    unknown = ["c"] if draw(st.integers(0, 5)) == 3 else []
    others = st.lists(st.sampled_from([*known, *unknown]), min_size=1, max_size=3)
    text = "import functools\nimport tidalctl\n" + MAKE.replace("PLAIN", str(draw(st.booleans()))) + load.replace("MARK", mark)
    text += "\n\ndef handler(event, context):\n    told = []\n    for name in event['names']:\n        state = load(name)\n"
    text += "        with torch.no_grad():\n            total = state['net'](torch.full((512,), event['x'])).sum().item()\n"
    text += f"        told.append([total, {{key: value for key, value in state.items() if key != 'net'}}, {said}])\n"
    text += "    return {'0': told}\n"
    return text, traced, {"k": "a", "x": 0.5, "names": draw(others)}


@st.composite
def statements(draw: Callable[[st.SearchStrategy[Any]], Any], size: int, most: int = 10) -> tuple[list[str], list[str]]:
    """Draw the statements of a module, and for each what the handler says of it. The first one makes weights of `size` elements."""
    parts, said, old = [], [], 0
    for number in range(draw(st.integers(2, most))):
        kind = draw(st.sampled_from(MAKE_WEIGHTS if number == 0 else DRAWN))
        names = {"NUM": str(number), "OLD": str(old), "SIZE": str(size), "WIDTH": str(max(int(size**0.5), 8))}
        texts = []
        for text in STATEMENTS[kind]:
            for name, value in names.items():
                text = text.replace(name, value)
            texts.append(text)
        parts.append(texts[0])
        said.append(texts[1])
        old = number if kind in MAKE_WEIGHTS else old
    return parts, said


@st.composite
def small_modules(draw: Callable[[st.SearchStrategy[Any]], Any]) -> SmallProject:
    """Draw a project whose module makes its state at import, has something that makes it for the handler, or makes it by name."""
    files = {f"f{number}.json": f'{{"v": "file {number}"}}\n' for number in range(10)}
    kind = draw(st.sampled_from(["import", "import", "call", "name"]))
    if kind == "name":
        text, traced, other = draw(named_states())
        return SmallProject({**files, "app.py": HEAD + text}, {}, {}, {}, traced, other, [])
    if kind == "import":
        parts, said = draw(statements(2**18))
        text = "\n\n".join(parts) + "\n\n\ndef handler(event, context):\n    return {"
        text += ", ".join(f"'{number}': {one}" for number, one in enumerate(said)) + ", 'x': event['x']}\n"
        options: list[str] = []
    else:
        loader, call = LOADERS[draw(st.sampled_from(sorted(LOADERS)))]
        body = draw(st.sampled_from(BODIES))
        indent = " " * (loader.index("BODY") - loader.rindex("\n", 0, loader.index("BODY")) - 1)
        text = loader.replace("BODY", body.replace("\n    ", f"\n{indent}"))
        text += "\n\ndef handler(event, context):\n    state = " + call
        text += "\n    with torch.no_grad():\n        made = state['net'](torch.full((512,), event['x'])).sum().item()\n"
        text += "    return {'0': made, '1': {key: value for key, value in state.items() if key != 'net'}}\n"
        options = ["--init", "auto"] if draw(st.integers(0, 5)) != 3 else []  # without it nothing is restored
    files["app.py"] = HEAD + "\n" + text
    return SmallProject(files, {}, {}, {}, [{"k": "a", "x": 1.5}], {"k": "a", "x": 0.5}, options)
