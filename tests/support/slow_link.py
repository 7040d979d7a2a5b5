"""A link to the weights that is slower than the machine's own, for tests and measurements. Scripts take its source in."""

import threading
import time
from typing import Any


def slow_down(device: type[Any], pace: float, resident: int = 0) -> None:
    """Have `device.bring` return only when a link of `pace` bytes a second would have brought what is beyond the first `resident`."""
    lock, bring = threading.Lock(), device.bring
    free: float | None = None

    def slowly(self: Any, group: Any) -> None:
        nonlocal free, resident
        with lock:
            free = time.monotonic() if free is None else free
            exempt = min(group.nbytes, resident)
            resident -= exempt
            free += (group.nbytes - exempt) / pace
            arrives = free
        bring(self, group)
        time.sleep(max(arrives - time.monotonic(), 0))

    device.bring = slowly
