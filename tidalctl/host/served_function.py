"""A function that a host serves: its template process, another one where that has ended or the bundle is another by now."""

import time
from collections.abc import Callable, Mapping
from typing import Any

from tidalctl.host.kept_template import KeptTemplate, NotServed

FIRST_RETRY_S, LAST_RETRY_S = 1.0, 60.0


class ServedFunction:
    """A name, a bundle, and the template process that has its events answered.

    `environ` and `directory` are those in which it is imported. Where it shall `follow` the bundle, another one of that name is served
    from its next event on, and otherwise when `reload` is called. `wanted_spares` are had ready while it is in use. `changed` is called
    when something has happened to it, and `tell` with a new state of its latest template. A template that failed is made again when it
    is asked for and a delay has passed, which doubles.

    Attributes:
        current: The template process, None before the first.
        latest: The one that was made last, which may be about to take over.
        retired: Older ones that have events to end.
        refused: Why none can be made.
        restarts: How many were made because another had ended.
        evictions: How many went for memory.
        saved_s: What one saves a request: the seconds in which it was made.
        most_held: The most bytes that its processes held, 0 before they have said so.
    """

    def __init__(
        self,
        name: str,
        bundle: str,
        environ: Mapping[str, str],
        directory: str,
        changed: Callable[[], None],
        tell: "Callable[[str, ServedFunction], None]",
        wanted_spares: int = 1,
        *,
        follow: bool = False,
    ) -> None:
        self.name, self.bundle = name, bundle
        self.wanted_spares = wanted_spares
        self.keep_s = 0.0
        self.refused: NotServed | None = None
        self.latest: KeptTemplate | None = None
        self._tell, self._told = tell, ("", 0)
        self.current: KeptTemplate | None = None
        self.retired: list[KeptTemplate] = []
        self._next: KeptTemplate | None = None  # one that is to take over
        self.restarts = 0
        self._environ, self._directory, self._changed, self._follow = environ, directory, changed, follow
        self.evictions = 0
        self.most_held = 0
        self.saved_s = 0.0
        self._failures = 0
        self._retry_at = 0.0

    def template(self) -> KeptTemplate:
        """Return the template process that is to have the next event: this one, or a new one. One that failed stays until its retry."""
        current = self.current
        if current is None or (self._follow and current.outdated()) or current.read_others():
            return self._launch()
        if current.cause is None:
            self._failures = self._failures if current.state == "starting" else 0
            return current
        now = time.monotonic()
        if current.state == "failed" and not self._retry_at:
            self._failures += 1
            self._retry_at = now + self.retry_s
        if current.state == "failed" and now < self._retry_at:
            return current
        self.restarts += 1
        return self._launch()

    def _make(self) -> KeptTemplate:
        self.latest = template = KeptTemplate(self.bundle, self._environ, self._directory, lambda: self._heard(template))
        return template

    def _heard(self, template: KeptTemplate) -> None:
        """Something has happened to a template process."""
        if template is self.latest and template.state != "starting" and self._told != (template.state, template.pid):
            self._told = (template.state, template.pid)
            self._tell(template.state, self)
        self._changed()

    async def reload(self) -> None:
        """Make a template process of the bundle as it is now, and have it take over when it is ready. One that fails does not."""
        self._next = template = self._make()
        try:
            await template.settled()
        except NotServed:
            if self.current is not None and self.current.cause is None:
                await template.end()
                return
        finally:
            self._next = None
        if self.current is not None:
            self.retired.append(self.current)
        self.current = template
        self._failures, self._retry_at = 0, 0.0
        self._changed()

    @property
    def retry_s(self) -> float:
        """Seconds after the latest failure that it is tried again."""
        return min(FIRST_RETRY_S * 2 ** max(0, self._failures - 1), LAST_RETRY_S)

    def _launch(self) -> KeptTemplate:
        if self.current is not None:
            self.retired.append(self.current)
        self._retry_at = 0.0
        self.current = self._make()
        return self.current

    @property
    def memory_bytes(self) -> int:
        """The bytes that its processes held last; 0 before they have said so."""
        return sum(template.memory_bytes for template in self._templates())

    def ask_memory(self) -> None:
        """Have its processes say what they hold, and note what is to be known of them when they are gone."""
        for template in self._templates():
            template.ask_memory()
            self.saved_s = template.ready_after_s or self.saved_s
        self.most_held = max(self.most_held, self.memory_bytes)

    @property
    def running(self) -> int:
        """Events that are being answered."""
        return sum(template.running for template in self._templates())

    def idle_s(self, now: float) -> float:
        """Return for how long nothing has been asked for."""
        return min((template.idle_s(now) for template in self._templates()), default=0.0)

    async def tidy(self) -> None:
        """End older template processes that have no event left."""
        if self.current is not None:
            self.current.reap()
        done = [template for template in self.retired if not template.running]
        self.retired = [template for template in self.retired if template.running]
        for template in done:
            await template.end()

    async def end(self) -> None:
        """End all of its processes."""
        templates, self.current, self._next, self.retired = self._templates(), None, None, []
        for template in templates:
            await template.end()

    def status(self) -> dict[str, Any]:
        """Return what `tidalctl ps` shows."""
        told = self.current.status() if self.current is not None else self._not_started()
        return {
            "function": self.name,
            **told,
            "keep_s": self.keep_s,
            "restarts": self.restarts,
            "evictions": self.evictions,
            "memory_bytes": self.memory_bytes,
        }

    def _not_started(self) -> dict[str, Any]:
        refused = self.refused
        why = {"state": refused.code, "cause": refused.text} if refused is not None else {"state": "not started", "cause": None}
        return {"bundle": self.bundle, **why}

    def _templates(self) -> list[KeptTemplate]:
        return [*self.retired, *(template for template in (self.current, self._next) if template is not None)]
