"""Whom the service answers, and its limits."""

from dataclasses import dataclass

LOCAL_HOSTS = frozenset({"127.0.0.1", "localhost", "[::1]"})
"""Names by which a browser on this machine calls it."""

MAX_IMAGES = 32  # in one request


@dataclass(frozen=True)
class Settings:
    """Limits and secrets of one service; the defaults are those of the documentation.

    Sizes are in bytes, times in seconds, rates in requests a second and client.

    - ``public``: other machines can connect. Then everything but the probes and the page needs ``token``, and rates
      are limited; otherwise only edits need it.
    - ``hosts``: the host names that the service answers to; probes may name any.
    - ``held_bytes`` bounds all request bodies together; a body must arrive at ``min_body_rate`` bytes a second once
      ``body_grace`` is over.
    - ``batch_size`` photos are encoded together at most; a batch waits ``batch_wait`` for photos being decoded.
    - ``photo_slots`` photos are in work at most, and a request waits ``max_wait`` for a slot. In an overload these are
      ``overload_slots`` and ``overload_max_wait``, and a request that is refused unread is answered after
      ``overload_delay``.
    """

    token: str
    title: str = "catalog"
    public: bool = False
    hosts: frozenset[str] = LOCAL_HOSTS
    keep_photos: bool = False
    header_bytes: int = 16 * 2**10
    body_bytes: int = 10 * 2**20
    edit_bytes: int = 64 * 2**10
    held_bytes: int = 64 * 2**20
    min_body_rate: float = 1024.0
    body_grace: float = 5.0
    request_seconds: float = 30.0
    max_in_flight: int = 64
    read_rate: float = 50.0
    read_burst: int = 100
    write_rate: float = 10.0
    write_burst: int = 20
    batch_size: int = 16
    batch_wait: float = 0.004
    photo_slots: int = 16
    max_wait: float = 1.0
    overload_slots: int = 8
    overload_max_wait: float = 0.01
    overload_delay: float = 0.1
