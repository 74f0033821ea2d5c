"""How often a client may ask, and how many requests run at once."""

import ipaddress
import math
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from mixtura.web.problems import Refusal, busy

CLIENTS = 10_000
"""Clients that are remembered; beyond, the one that asked longest ago is forgotten."""


@dataclass
class Bucket:
    """What a client may still ask, and when that was computed, in seconds."""

    left: float
    at: float


class Rate:
    """A token bucket for each client: ``burst`` at once, then ``rate`` a second.

    Args:
        rate: requests a second.
        burst: requests at once.
        clock: seconds, never backwards.
    """

    def __init__(self, rate: float, burst: int, clock: Callable[[], float]) -> None:
        self._rate, self._burst, self._clock = rate, burst, clock
        self._clients: OrderedDict[str, Bucket] = OrderedDict()

    def take(self, client: str) -> None:
        """Count one request.

        Raises:
            Refusal: 429, with the time after which there is room again.
        """
        now = self._clock()
        bucket = self._clients.setdefault(client, Bucket(float(self._burst), now))
        self._clients.move_to_end(client)
        if len(self._clients) > CLIENTS:
            self._clients.popitem(last=False)
        bucket.left = min(self._burst, bucket.left + self._rate * (now - bucket.at))
        bucket.at = now
        if bucket.left < 1:
            seconds = max(1, math.ceil((1 - bucket.left) / self._rate))
            said = f"Too many requests: {self._rate:g} a second are answered, {self._burst} at once. Wait {seconds} s."
            raise Refusal(429, said, {"Retry-After": str(seconds)})
        bucket.left -= 1


class Crowd:
    """Requests in work, at most ``most``."""

    def __init__(self, most: int) -> None:
        self.most, self.count = most, 0

    @contextmanager
    def one(self) -> Iterator[None]:
        """Room for one request.

        Raises:
            Refusal: 503 where there is none.
        """
        if self.count >= self.most:
            raise busy(f"{self.most} requests are in work, which is the limit. Ask again in a second.")
        self.count += 1
        try:
            yield
        finally:
            self.count -= 1


def client_of(address: str) -> str:
    """Who counts as one client: an IPv4 address, or the network of an IPv6 address, which belongs to one customer.

    >>> client_of("192.0.2.7"), client_of("2001:db8::1"), client_of("2001:db8::2")
    ('192.0.2.7', '2001:db8::/64', '2001:db8::/64')
    """
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        mapped = parsed.ipv4_mapped
        return str(mapped or ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)
