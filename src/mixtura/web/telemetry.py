"""What the service counts, as Prometheus scrapes it."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import choose_encoder

TIME_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)  # seconds
KNOWN_METHODS = frozenset({"GET", "HEAD", "POST", "PATCH", "DELETE", "OPTIONS", "PUT", "TRACE"})


class Telemetry:
    """The metrics of one service since its start, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "mixtura_requests",
            "Answers by method, route and status.",
            ["method", "route", "status"],
            registry=self._registry,
        )
        self.decisions = Counter("mixtura_decisions", "Decisions by verdict.", ["verdict"], registry=self._registry)
        self.request_seconds = Histogram(
            "mixtura_request_seconds",
            "Time from the request to the end of its answer.",
            ["route"],
            buckets=TIME_BUCKETS,
            registry=self._registry,
        )

    def gauge(self, name: str, description: str, value: Callable[[], float]) -> None:
        """Add a gauge, ``mixtura_`` before its name, whose value is asked for at each scrape."""
        Gauge(f"mixtura_{name}", description, registry=self._registry).set_function(value)

    def count_answer(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one answer; ``seconds`` from the first byte to the last."""
        # A client may make up methods without number, and each would take memory.
        self.requests.labels(method if method in KNOWN_METHODS else "other", route, str(status)).inc()
        self.request_seconds.labels(route).observe(seconds)

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """All metrics in the format that a scraper accepts, and its content type."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type
