"""What `order.py` and `resident.py` share: starts from a bundle over a link that is slower than the machine's own."""

import json
from pathlib import Path
from typing import Any

import measure

PROMPT, VOCABULARY = 384, 256  # long enough that computing the first token takes as long as a slow link
# A start as `tidalctl run` makes it, with the stream's options. With `warm`, all is imported before the clock starts.
START = """
import json, sys, time
from collections import deque
entered = time.monotonic_ns()
from pathlib import Path
request = json.loads(sys.argv[1])
from tidalctl.function.target import pieces
from tidalctl.runtime.weights import weight_stream
from tidalctl.runtime.weights.engine import Engine
from tidalctl.runtime.weights.mapped import MappedDevice
from tidalctl.runtime.load_bundle import guarded
from tidalctl.runtime.template import Template
from tidalctl.runtime.process.timeline import Timeline, process_start_ns
if request["warm"]:
    import importlib
    for name in request["modules"]:
        importlib.import_module(name)
    import tidalctl.runtime.restore, tidalctl.runtime.weights.module_gate
    entered = time.monotonic_ns()
timeline = Timeline(entered if request["warm"] else process_start_ns(), entered)
link = request["link"]
if link["pace"]:
    slow_down(MappedDevice, link["pace"], link["resident"])
if link["order"]:
    class Ordered(Engine):  # a needed group waits for its turn
        def __init__(self, groups, *given, **options):
            super().__init__(groups, *given, **options)
            places = {"default": lambda place: min(weight.name for weight in groups[place].weights), "reversed": lambda place: -place}
            self._queue = deque(sorted(self._queue, key=places.get(link["order"])))
            self._urgent = deque(maxlen=0)
    weight_stream.Engine = Ordered
template = Template(Path(request["bundle"]), timeline)
handler = template.prepare(request["event"], ())
output = []
for piece in guarded(pieces(handler(request["event"], None)), template):
    timeline.mark("first token")
    output.append(piece)
ready, first = timeline.since_start("state made"), timeline.since_start("first token")
stalled = sum(end - begin for _, begin, end in template.weights.engine.stalls) / 1e9
print()
print(json.dumps({
    "ttft_s": first, "ready_s": ready, "compute_s": first - ready - stalled, "stalled_s": stalled, "output": output,
    "strategy": template.strategy, "bytes": sum(group.nbytes for group in template.weights.groups),
}))
"""


def event(number: int) -> dict[str, Any]:
    return {"prompt": [(37 * i + 11 + 5 * number) % VOCABULARY for i in range(PROMPT)], "tokens": 1}


def bundle(options: Any) -> Path:
    """The base model's function, traced with a prompt of the measured length."""
    measure.llama(options)
    target = options.work.absolute() / f"paced-{options.shape}.bundle"
    return measure.bundle(measure.HERE / "apps/llama_base.py", [json.dumps(event(0))], target, options.reuse)


def start(path: Path, warm: bool, *, pace: float | None = None, resident: int = 0, order: str | None = None) -> Any:
    """One start in a fresh process over a link of `pace` bytes a second, of which the first `resident` are exempt. Raises Failed.

    With an `order` ("traced", "default": by the weights' names, "reversed") a needed group waits for its turn in it.
    """
    manifest = json.loads((path / "manifest.json").read_bytes())
    modules = dict.fromkeys(name.partition(":")[0] for name in manifest["globals"])
    modules.pop(manifest["function"]["module"], None)
    request = {
        "bundle": str(path),
        "event": event(1),
        "warm": warm,
        "modules": list(modules),
        "link": {"pace": pace, "resident": resident, "order": order},
    }
    return measure.run((measure.ROOT / "tests/support/slow_link.py").read_text() + START, json.dumps(request)).report
