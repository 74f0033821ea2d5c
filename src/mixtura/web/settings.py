"""Whom the service answers, and how much it takes."""

from dataclasses import dataclass

LOCAL = frozenset({"127.0.0.1", "localhost", "[::1]"})
"""Names by which a browser on this machine calls it."""

IMAGES = 32
"""Photos in one request, at most."""


@dataclass(frozen=True)
class Settings:
    """Limits and secrets of one service; the defaults are those of the documentation.

    ``token`` opens what is closed; with ``public``, that is everything but ``/healthz`` and the page, else only what
    changes something. ``hosts`` are the names it answers to. Sizes are in bytes, times in seconds, rates in requests a
    second and client. ``held_bytes`` bounds all request bodies together. A body must arrive at ``body_floor`` bytes a
    second once ``body_grace`` is over. ``batch`` photos are encoded together at most; ``places`` bounds the photos that
    are being worked on, ``patience`` the time that a request waits for a place; ``few`` and ``brief`` are the same
    where the line does not end; who is refused unread is answered after ``hold``.
    """

    token: str
    title: str = "catalog"
    public: bool = False
    hosts: frozenset[str] = LOCAL
    keep_photos: bool = False
    header_bytes: int = 16 * 2**10
    body_bytes: int = 10 * 2**20
    edit_bytes: int = 64 * 2**10
    held_bytes: int = 64 * 2**20
    body_floor: float = 1024.0
    body_grace: float = 5.0
    request_seconds: float = 30.0
    in_flight: int = 64
    read_rate: float = 50.0
    read_burst: int = 100
    write_rate: float = 10.0
    write_burst: int = 20
    batch: int = 16
    batch_wait: float = 0.004
    places: int = 16
    few: int = 8
    patience: float = 1.0
    brief: float = 0.01
    hold: float = 0.1
