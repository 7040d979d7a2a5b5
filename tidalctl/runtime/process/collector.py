"""The garbage collector during a start."""

import gc


class CollectorPaused:
    """The garbage collector off from the start until the first output; then the heap is frozen and the collector as it was.

    A start makes a million objects and drops next to none, so that collections are pure cost. In the end all of them leave the
    collector's view, as `gc.freeze` documents.
    """

    def __init__(self) -> None:
        self._was_on = gc.isenabled()
        gc.disable()

    def resume(self) -> None:
        """To be called as often as you like: only the first time it does anything."""
        if self._was_on and not gc.isenabled():
            gc.freeze()
            gc.enable()
        self._was_on = False
