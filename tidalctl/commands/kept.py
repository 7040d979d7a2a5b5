"""`run --keep`: the host's answer, or an ordinary start where it can't be that."""

import sys
from typing import Any


def run_kept(fields: dict[str, Any]) -> int:
    """Have the host answer with the fields of RunOptions and `keep`. Answer in this process where it can't."""
    from tidalctl.commands.duration import parse_duration
    from tidalctl.host.client import run_kept as ask
    from tidalctl.runtime.process.timeline import process_entered_ns, process_start_ns

    keep_s = parse_duration("--keep", str(fields.pop("keep")))
    ordinary = [option for option, usual in ORDINARY.items() if fields.get(option, usual) != usual]
    if ordinary:
        print(f"note: started without the host: --{ordinary[0]} is for a start of its own", file=sys.stderr)
    else:
        code = ask(fields, keep_s, process_start_ns(), process_entered_ns())
        if code is not None:
            return code
    from tidalctl.runtime.launch import start

    return start(fields)


# options about what a template has done already, and what they are where nobody gives them
ORDINARY = {"eager": False, "verify": "stream", "ahead": None, "io": "auto", "prewarm": "auto"}
