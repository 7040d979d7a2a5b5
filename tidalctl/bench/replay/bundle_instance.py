"""Runs a function from its bundle and answers events that come through a socket, as eager_clock.py does for the plain function.

python -m tidalctl.bench.replay.bundle_instance FD BUNDLE
"""

import json
import os
import sys
import time
from collections.abc import Mapping
from typing import Any

from tidalctl.function.context import Context
from tidalctl.function.outputs import answer_of, is_async, is_stream
from tidalctl.runtime.load_bundle import BundleFunction, load_bundle


def main() -> None:
    """Answer each line with one, until the other end is closed."""
    fd, bundle = int(sys.argv[1]), sys.argv[2]
    sys.argv[1:] = []
    function = load_bundle(bundle)
    with open(fd, "rb", closefd=False) as lines:
        for line in lines:
            try:
                told = _answered(function, json.loads(line))
            except Exception as error:  # noqa: BLE001 - the user's function may raise anything; more events are to come
                told = {"failed": f"{type(error).__name__}: {error}"}
            reply = json.dumps(told).encode() + b"\n"
            while reply:
                reply = reply[os.write(fd, reply) :]


def _answered(function: BundleFunction, request: Mapping[str, Any]) -> dict[str, Any]:
    encode = function.template.manifest.function.encode
    result = function(request["event"], Context(request["context"]))
    if is_async(result):
        from tidalctl.function.event_loop import settled

        result = settled(result)
    streams = is_stream(result)
    first, output = 0, []
    for number, piece in enumerate(result if streams else (result,)):
        answer = answer_of(piece, number if streams else None, encode=encode)
        first = first or time.monotonic_ns()
        output.append(answer)
    template = function.template
    return {
        "first_token_ns": first or None,
        "done_ns": time.monotonic_ns(),
        "output": output if streams else output[0],
        "strategy": template.strategy,
        "cause": template.fallback.code if template.fallback is not None else None,
    }


if __name__ == "__main__":
    main()
