"""`run --keep`: the host's answer, or an ordinary start where it can't be that."""

import sys
from typing import Any

from tidalctl.commands.best_start import best_start, own_start_option


def run_kept(fields: dict[str, Any]) -> int:
    """Have the host answer with the fields of RunOptions and `keep`. Answer in this process where it can't."""
    from tidalctl.commands.duration import parse_duration
    from tidalctl.host.client import run_kept as ask
    from tidalctl.runtime.process.timeline import process_entered_ns, process_start_ns

    keep_s = parse_duration("--keep", str(fields.pop("keep")))
    image = fields.pop("image", "auto")
    if (option := own_start_option(fields)) is not None:
        print(f"note: started without the host: --{option} is for a start of its own", file=sys.stderr)
    else:
        code = ask(fields, keep_s, process_start_ns(), process_entered_ns())
        if code is not None:
            return code
    return best_start({**fields, "image": image})
