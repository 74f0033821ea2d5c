"""A running service: its socket, its token, and uvicorn around the app."""

import ctypes
import errno
import ipaddress
import os
import re
import secrets
import socket
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import torch
import uvicorn
from PIL import Image
from starlette.types import ASGIApp
from torch import Tensor

from mixtura.catalog import Catalog
from mixtura.catalog.journal import Journal
from mixtura.errors import NoInput, UsageError
from mixtura.pipeline.factory import PhotoEncoder
from mixtura.tasks.predict import encoder_for
from mixtura.web.app import create_app
from mixtura.web.connection import Connection
from mixtura.web.settings import LOCAL, Settings

TOKEN = "MIXTURA_TOKEN"  # noqa: S105 - the name of a variable
_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]{22,256}")
_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,251}[a-z0-9])?|\[[0-9a-f:.]{2,45}\]")
KEEP_ALIVE, GRACE = 5, 10  # seconds
BACKLOG = 512
M_MMAP_THRESHOLD, LARGE = -3, 8 * 2**20  # of mallopt(3); bytes
MOST_AT_ONCE, CHEAP, LONGER = 16, 1.05, 2.5  # photos of a batch, and the times of batches that are told apart
LONG_SIDE = 640  # pixels of the photo that is tried
TIMES, LONG = 4, 0.5  # how often a batch is tried, and the seconds after which it is not tried again
SWITCH = 0.0002  # seconds after which a busy thread lets another one go on


def token_of(path: Path | None) -> str:
    """The token from a file, from ``MIXTURA_TOKEN``, or a new one of 256 random bits.

    Raises:
        NoInput: the file cannot be read.
        UsageError: it is too short to be a secret.
    """
    if path is not None:
        try:
            given, where = path.read_text(encoding="utf-8").strip(), str(path)
        except (OSError, UnicodeDecodeError) as error:
            raise NoInput(f"The token file {path} cannot be read ({error}). Give a text file with one line.") from error
    else:
        given, where = os.environ.get(TOKEN, "").strip(), TOKEN
        if not given:
            return secrets.token_urlsafe(32)
    if not _TOKEN.fullmatch(given):
        raise UsageError(
            f"The token of {where} is not 22 to 256 letters, digits or -._~+/= without blanks. "
            "Make one: python -c 'import secrets; print(secrets.token_urlsafe())'"
        )
    return given


def bound(host: str, port: int) -> socket.socket:
    """A socket at an address; nobody can connect before it listens.

    Raises:
        UsageError: the port is in use or not allowed, or the address is not of this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        made = socket.socket(family, kind, protocol)
    except OSError as error:
        raise UsageError(f"{host!r} is no address: {error.strerror}. Give one of this machine.") from error
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
    except OSError as error:
        made.close()
        if error.errno == errno.EADDRINUSE:
            raise _in_use(host, port) from error
        raise UsageError(f"Cannot listen at {host} port {port}: {error.strerror}. Give another address.") from error
    return made


def opened(folder: Path, keep_photos: bool) -> tuple[Catalog, Journal, PhotoEncoder]:
    """The catalog of a model folder, its journal and its encoder, warmed up.

    Raises:
        NoInput, DataError: there is no model, or it is damaged or made with another encoder.
        UsageError: it is a catalog of sounds.
    """
    catalog = Catalog.open(folder)
    encoder = encoder_for(catalog.model)
    if not isinstance(encoder, PhotoEncoder):
        raise UsageError(f"{folder} holds sounds, and only photos can be served. Use mixtura predict {folder} FILE.")
    return catalog, Journal.open(folder, keep_photos), encoder


def _in_use(host: str, port: int) -> UsageError:
    return UsageError(f"Port {port} of {host} is in use. Stop what uses it, or give another --port.")


def pace(encoder: PhotoEncoder) -> tuple[int, int]:
    """How many photos are encoded together at most, and how many where each is to be answered soon.

    The first is the power of two at which a photo costs least; the second is the largest that takes at most 2.5 times
    as long as one photo, so that nobody waits much longer than alone.
    """
    photo = encoder.prepare(Image.new("RGB", (LONG_SIDE, LONG_SIDE)))
    alone = least = _seconds(encoder, photo, 1)
    batch = soon = size = 1
    while size < MOST_AT_ONCE:
        size *= 2
        whole = _seconds(encoder, photo, size)
        if CHEAP * whole / size > least:
            break  # larger ones pay no more, and would only make the start longer
        batch, least = size, whole / size
        soon = size if whole <= LONGER * alone else soon
    return batch, soon


def _seconds(encoder: PhotoEncoder, photo: Tensor, count: int) -> float:
    """How long a batch of equal photos takes, at best of a few times; a slow one is not repeated."""
    batch, times = torch.stack([photo] * count), list[float]()
    while not times or (len(times) < TIMES and sum(times) < LONG):
        began = time.perf_counter()
        encoder.encode(batch)
        times.append(time.perf_counter() - began)
    return min(times)


def run(
    service: tuple[Catalog, Journal, PhotoEncoder],
    settings: Settings,
    listener: socket.socket,
    started: Callable[[], None],
) -> None:
    """Serve until a signal ends it; requests in work are answered first.

    Args:
        service: catalog, journal and encoder.
        settings: whom to answer, and how much; how many photos at once is measured here.
        listener: a bound socket.
        started: called when clients can connect.

    Raises:
        UsageError: another service listens at the port since.
    """
    # One core is for the event loop and the decoders: threads that wait for each other's parts of a product spin, and
    # on all cores they would keep everything else from its turn.
    torch.set_num_threads(max(1, min(torch.get_num_threads(), (os.cpu_count() or 1) - 1)))
    batch, soon = pace(service[2])
    app = create_app(*service, replace(settings, batch=batch, few=2 * soon))
    # The encoder's thread takes the interpreter's lock for an instant hundreds of times a batch; with the usual 5 ms it
    # would wait for the event loop most of the time, as soon as that is busy.
    sys.setswitchinterval(SWITCH)
    _return_memory()
    try:
        listener.listen(BACKLOG)
    except OSError as error:  # two may be bound to a port before one of them listens
        raise _in_use(*listener.getsockname()[:2]) from error
    started()
    uvicorn.Server(config(app)).run(sockets=[listener])


def _return_memory() -> None:
    """Have the C library give large blocks back as soon as they are freed: the pixels of one photo may be a gigabyte.

    By itself glibc learns from the first large block to keep those that follow.
    """
    with suppress(OSError, AttributeError, TypeError):  # another C library
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, LARGE)


def config(app: ASGIApp) -> uvicorn.Config:
    """How uvicorn runs the app: no headers of proxies are believed, nothing is logged but by us."""
    return uvicorn.Config(
        app,
        http=Connection,
        ws="none",
        loop="asyncio",
        lifespan="on",
        workers=1,
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=GRACE,
        h11_max_incomplete_event_size=Settings.header_bytes,
    )


def is_local(listener: socket.socket) -> bool:
    """Whether only this machine can connect."""
    return ipaddress.ip_address(listener.getsockname()[0]).is_loopback


def names(listener: socket.socket, further: Sequence[str]) -> frozenset[str]:
    """The names that the service answers to: those of this machine, the address itself, and ``further``.

    Raises:
        UsageError: one is no name of a host.
    """
    wrong = next((name for name in further if not _NAME.fullmatch(name.lower())), None)
    if wrong is not None:
        raise UsageError(f"{wrong!r} is no name of a host. Give it without http:// and without a port.")
    return LOCAL | {_shown(listener)} | {name.lower() for name in further}


def address(listener: socket.socket, further: Sequence[str]) -> str:
    """Where the page is, as a browser writes it."""
    own = ipaddress.ip_address(listener.getsockname()[0])
    name = further[0] if further else "127.0.0.1" if own.is_unspecified else _shown(listener)
    return f"http://{name}:{listener.getsockname()[1]}"


def _shown(listener: socket.socket) -> str:
    host = listener.getsockname()[0]
    return f"[{host}]" if ":" in host else host
