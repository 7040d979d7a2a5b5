"""A user's own `compiler.py`, `tracer.py` or `artifacts/` keeps meaning the user's, in trace, compile and run."""

import json
from collections.abc import Callable

from conftest import Chain

FILES = {
    "app.py": """
import torch
import compiler
import tidalctl
import tracer
from artifacts.store import KEPT


@tidalctl.init(static=True)
def load(event):
    return {"weight": torch.full((2,), float(compiler.ANSWER)), "store": KEPT}


def handler(event, context):
    import late
    state = load(event)
    return [state["weight"].tolist(), tracer.WORD, state["store"].name, late.WORD]
""",
    "compiler.py": "ANSWER = 42\n",
    "tracer.py": "WORD = 'mine'\n",
    "late.py": "WORD = 'late'\n",
    "artifacts/__init__.py": "",
    "artifacts/store.py": "class Store:\n    name = 'the store'\n\n\nKEPT = Store()\n",
}


def test_modules_named_like_our_rooms_stay_the_users(chain: Callable[..., Chain]) -> None:
    made = chain(FILES)
    expected = [[42.0, 42.0], "mine", "the store", "late"]
    assert made.plain({}) == expected
    report = made.run({})
    assert (report["output"], report["strategy"]) == (expected, "snapshot")
    shipped = {name for name in json.loads((made.bundle / "manifest.json").read_bytes())["files"] if name.startswith("code/")}
    assert shipped == {f"code/{name}" for name in FILES}
