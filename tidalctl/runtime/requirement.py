"""`--require`: a start that does not make its state from the bundle by one strategy is an error."""

from tidalctl.artifacts.bundle.manifest import Manifest
from tidalctl.artifacts.cause import Cause, Reason
from tidalctl.artifacts.errors import StateNotUsed


class Requirement:
    """The strategy that a start must use: exactly this one, or any at all where it is None.

    The function may catch what `check` raises from its call of init, so what leaves the process asks `refuse_unmet` first.
    """

    def __init__(self, manifest: Manifest, strategy: str | None) -> None:
        self.strategy = strategy
        self._manifest = manifest
        self._unmet: Reason | None = None

    def begin(self) -> None:
        """Turn to an event: that an earlier one was refused is nothing to it."""
        self._unmet = None

    def check(self, reason: Reason | None) -> None:
        """Raise StateNotUsed where the state is not to be made as required. `reason` says why init is to run, if it is."""
        if self.strategy is not None:
            self._unmet = reason or self._other_strategy()
            self.refuse_unmet()

    def check_used(self, *, state_made: bool) -> None:
        """Raise StateNotUsed where all is answered and init was never called."""
        self.refuse_unmet()
        if not state_made:
            self.check(Cause.INIT_NOT_CALLED.of(init=self._manifest.init))

    def refuse_unmet(self) -> None:
        """Raise StateNotUsed once more for an event that was refused."""
        if self._unmet is not None:
            from tidalctl.artifacts.remedy import remedy

            message = f"a start by {self.strategy} was required, and this is not one: {self._unmet}"
            raise StateNotUsed(message, remedy(self._unmet), self._unmet.code)

    def _other_strategy(self) -> Reason | None:
        manifest = self._manifest
        if manifest.strategy == self.strategy:
            return None
        lost = [f": {lost.cause} ({lost.code})" for lost in manifest.fallbacks if lost.strategy == manifest.strategy]
        why = lost[-1] if lost else ""
        return Cause.STRATEGY_DIFFERS.of(strategy=manifest.strategy, required=self.strategy, why=why)
