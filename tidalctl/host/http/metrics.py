"""What Prometheus is told: invocations, time to first token, queue, memory, and what became of templates."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from tidalctl.host.front import Front
from tidalctl.host.http.limits import Limits

BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 30, 60)


class Metrics:
    """Counts of one host. `outcome` is ok, error, ended, timeout, cancelled, not_served or queue_full."""

    def __init__(self, front: Front, limits: Limits) -> None:
        self._front, self._limits = front, limits
        self._registry = CollectorRegistry()
        self._invocations = Counter(
            "tidalctl_invocations", "Events that were asked for.", ("function", "start", "outcome"), registry=self._registry
        )
        self._ttft = Histogram(
            "tidalctl_ttft_seconds",
            "From the arrival of a request to the first piece of its answer.",
            ("function", "start"),
            buckets=BUCKETS,
            registry=self._registry,
        )
        self._registry.register(self)  # type: ignore[arg-type]

    def note(self, function: str, start: str, outcome: str, ttft_s: float | None) -> None:
        """Count an event that is over."""
        self._invocations.labels(function, start, outcome).inc()
        if ttft_s is not None:
            self._ttft.labels(function, start).observe(ttft_s)

    def collect(self) -> Iterator[Metric]:
        """What is as it is when it is asked for."""
        yield GaugeMetricFamily("tidalctl_queue", "Events that wait for their turn.", value=self._limits.waiting)
        yield GaugeMetricFamily("tidalctl_running", "Events that are being answered.", value=self._limits.running)
        spares = GaugeMetricFamily("tidalctl_spares", "Workers that are ready for an event.", labels=("function",))
        ready = GaugeMetricFamily("tidalctl_template_ready", "Whether the template is ready.", labels=("function",))
        memory = GaugeMetricFamily("tidalctl_memory_bytes", "Memory that templates and workers hold.", labels=("function",))
        restarts = CounterMetricFamily("tidalctl_template_restarts", "Templates that were made again.", labels=("function",))
        evictions = CounterMetricFamily("tidalctl_evictions", "Templates that were dropped for memory.", labels=("function",))
        for function in self._front.functions.values():
            status = function.status()
            spares.add_metric((function.name,), status.get("spares", 0))
            ready.add_metric((function.name,), status["state"] == "ready")
            memory.add_metric((function.name,), function.memory_bytes)
            restarts.add_metric((function.name,), function.restarts)
            evictions.add_metric((function.name,), function.evictions)
        yield from (spares, ready, memory, restarts, evictions)

    def text(self) -> bytes:
        """Return all in Prometheus's text format."""
        return generate_latest(self._registry)
