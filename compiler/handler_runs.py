"""How often compile has called the handler."""

from tidalctl.report.terminal import count_text


class HandlerRuns:
    """Calls of the handler so far: plain ones, those from the bundle, and those that were stopped once init had run."""

    def __init__(self) -> None:
        self.plain = 0
        self.bundle = 0
        self.until_init = 0

    def __str__(self) -> str:
        how = f"{self.plain} plainly, {self.bundle} from the bundle"
        if self.until_init:
            how += f"; it was stopped after init {count_text(self.until_init, 'more time')}"
        return f"the handler ran {count_text(self.plain + self.bundle, 'time')} ({how})"
