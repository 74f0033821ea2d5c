"""How often each client may send requests."""

import ipaddress
import math
from collections import OrderedDict
from collections.abc import Callable

from mixtura.web.problems import Refusal

MAX_CLIENTS = 10_000
"""Clients that are remembered; beyond, the one that asked longest ago is forgotten."""

ROUNDING = 1e-3  # of a token


class RateLimit:
    """A token bucket for each client: ``burst`` requests at once, then ``rate`` a second.

    Args:
        rate: requests a second.
        burst: requests at once.
        clock: seconds, never backwards.
    """

    def __init__(self, rate: float, burst: int, clock: Callable[[], float]) -> None:
        self._rate, self._burst, self._clock = rate, burst, clock
        self._full_at: OrderedDict[str, float] = OrderedDict()  # when the bucket of a client is full again

    def take(self, client: str) -> None:
        """Count one request.

        Raises:
            Refusal: 429, with the seconds until the next request is answered.
        """
        now = self._clock()
        full_at = max(now, self._full_at.pop(client, now))
        missing = (full_at - now) * self._rate + 1 - self._burst  # tokens, to the rounding of the clock
        self._full_at[client] = full_at if missing > ROUNDING else full_at + 1 / self._rate
        if len(self._full_at) > MAX_CLIENTS:
            self._full_at.popitem(last=False)
        if missing > ROUNDING:
            seconds = max(1, math.ceil(missing / self._rate))
            limit = f"{self._rate:g} a second, {self._burst} at once"
            detail = f"Too many requests; the limit is {limit}. Retry in {seconds} s."
            raise Refusal(429, detail, {"Retry-After": str(seconds)})


def client_of(address: str) -> str:
    """Who counts as one client: an IPv4 address, or the /64 network of an IPv6 address, which belongs to one customer.

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
