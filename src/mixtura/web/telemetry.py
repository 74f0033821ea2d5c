"""What the service counts, as Prometheus reads it."""

import bisect
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper bounds of the histogram of times, in seconds."""

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
METHODS = frozenset({"GET", "HEAD", "POST", "PATCH", "DELETE", "OPTIONS", "PUT", "TRACE"})

Labels = tuple[tuple[str, str], ...]


class Telemetry:
    """Counters since the start; written by the event loop only."""

    def __init__(self) -> None:
        self.requests: Counter[Labels] = Counter()
        self.verdicts: Counter[str] = Counter()
        self._times: dict[str, list[int]] = {}
        self._sums: Counter[str] = Counter()

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one answer; ``seconds`` from the first byte to the last."""
        known = method if method in METHODS else "other"
        self.requests[("method", known), ("route", route), ("status", str(status))] += 1
        times = self._times.setdefault(route, [0] * (len(BOUNDS) + 1))
        times[bisect.bisect_left(BOUNDS, seconds)] += 1
        self._sums[route] += seconds  # type: ignore[assignment]

    def text(self, gauges: Mapping[str, tuple[str, float | int]]) -> str:
        """All counters, with some values of this moment: name to what it means and how much it is."""
        lines: list[str] = []
        lines += _metric(
            "mixtura_requests_total", "counter", "Answers by method, route and status.", self.requests.items()
        )
        verdicts = ((((("verdict", name),)), count) for name, count in self.verdicts.items())
        lines += _metric("mixtura_decisions_total", "counter", "Decisions by verdict.", verdicts)
        lines += ["# HELP mixtura_request_seconds Time of an answer.", "# TYPE mixtura_request_seconds histogram"]
        for route in self._times:
            lines += self._histogram(route)
        for name, (about, value) in gauges.items():
            lines += _metric(f"mixtura_{name}", "gauge", about, [((), value)])
        return "\n".join(lines) + "\n"

    def _histogram(self, route: str) -> Iterator[str]:
        below = 0
        for bound, count in zip((*map(str, BOUNDS), "+Inf"), self._times[route], strict=True):
            below += count
            yield f"mixtura_request_seconds_bucket{_labels((('route', route), ('le', bound)))} {below}"
        yield f"mixtura_request_seconds_sum{_labels((('route', route),))} {self._sums[route]:.6f}"
        yield f"mixtura_request_seconds_count{_labels((('route', route),))} {below}"


def _metric(name: str, kind: str, about: str, values: Iterable[tuple[Labels, float | int]]) -> list[str]:
    head = [f"# HELP {name} {about}", f"# TYPE {name} {kind}"]
    return head + [f"{name}{_labels(labels)} {value}" for labels, value in values]


def _labels(pairs: Labels) -> str:
    """The labels in braces.

    >>> _labels((("route", 'a"b'),))
    '{route="a\\\\"b"}'
    """
    escaped = [(name, value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")) for name, value in pairs]
    return "{" + ",".join(f'{name}="{value}"' for name, value in escaped) + "}" if pairs else ""
