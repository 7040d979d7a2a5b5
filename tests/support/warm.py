"""Several events in one process, from the bundle and plainly."""

import json
from typing import Any

from conftest import Chain, python

from tidalctl.artifacts.cause import Reason

BUNDLED = """
import json, sys, tidalctl
function = tidalctl.load_bundle(sys.argv[1])
answers = []
for event in json.loads(sys.argv[2]):
    result = function(event)
    why = function.template.fallback
    fallback = why and {"code": why.code, "text": why.text}
    answers.append([list(result) if hasattr(result, "__next__") else result, fallback])
print()
print(json.dumps([answers, function.template.states.restored]))
"""
PLAINLY = """
import json, sys
sys.path.insert(0, sys.argv[1])
import app
print(json.dumps([app.handler(event, None) for event in json.loads(sys.argv[2])]))
"""
Event = dict[str, Any]


def served(made: Chain, *events: Event) -> tuple[list[Any], list[Reason | None], int]:
    """The answers from the bundle, why each was not served from it, and how often the state was restored."""
    done = python(BUNDLED, made.bundle, json.dumps(events), cwd=made.folder).ok()
    answers, restored = json.loads(done.out.strip().splitlines()[-1])
    return [output for output, _ in answers], [fallback and Reason(**fallback) for _, fallback in answers], restored


def plainly(made: Chain, *events: Event) -> Any:
    """What the plain function gives for these events, one after the other in one process."""
    return json.loads(python(PLAINLY, made.project, json.dumps(events), cwd=made.folder).ok().out.splitlines()[-1])
