"""The garbage collector during a start."""

import gc


class CollectorPaused:
    """The garbage collector off from the start until the first output; then the heap is frozen and the collector as it was.

    A start makes a million objects and drops next to none, so that collections are pure cost. In the end all of them leave the
    collector's view, as `gc.freeze` documents. A process that answers several events freezes its imports only, with `freeze_now`:
    what is frozen and later dropped in a cycle, as a state may be, stays for ever.
    """

    def __init__(self) -> None:
        self._was_on = gc.isenabled()
        self._frozen = False
        gc.disable()

    def freeze_now(self) -> None:
        """Freeze what there is now, and nothing at the end."""
        if self._was_on and not self._frozen:
            gc.freeze()
        self._frozen = True

    def resume(self) -> None:
        """To be called as often as you like: only the first time it does anything."""
        if self._was_on and not gc.isenabled():
            self.freeze_now()
            gc.enable()
        self._was_on = False
