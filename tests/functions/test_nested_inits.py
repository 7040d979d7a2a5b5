"""Of inits that call one another the outermost is the one whose state is kept, in the trace as in the snapshot."""

from collections.abc import Callable

import pytest
from conftest import Chain
from taken import HEAD

NESTED = """
@tidalctl.init(static=True)
def load_table(event):
    return {"table": torch.ones(3)}

@tidalctl.init(static=True)
def load(event):
    return {"weight": torch.arange(3.0), **load_table(event)}

def handler(event, context):
    state = load_table(event) if event.get("inner") else load(event)
    return {name: value.tolist() for name, value in state.items()}
"""


@pytest.mark.slow
def test_the_outermost_init_is_the_one_that_is_kept(chain: Callable[..., Chain]) -> None:
    made = chain(HEAD + NESTED, {})
    assert (made.manifest["init"], made.manifest["strategy"]) == ("app:load", "snapshot"), made.said()
    assert sorted(weight["name"] for weight in made.manifest["weights"]) == ["table", "weight"]
    assert made.run({"inner": 1})["output"] == made.plain({"inner": 1})
