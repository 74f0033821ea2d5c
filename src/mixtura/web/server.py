"""A running service: its socket, its token, and uvicorn around the app."""

import errno
import ipaddress
import os
import re
import secrets
import socket
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from mixtura.catalog import Catalog
from mixtura.catalog.journal import Journal
from mixtura.errors import NoInput, UsageError
from mixtura.pipeline.factory import PhotoEncoder
from mixtura.web.app import create_app
from mixtura.web.connection import Connection
from mixtura.web.live import photo_encoder
from mixtura.web.settings import LOCAL_HOSTS, Settings
from mixtura.web.tuning import leave_one_core, measure_batch_size, return_memory, warm_up

TOKEN_VARIABLE = "MIXTURA_TOKEN"  # noqa: S105 - the name of a variable
_TOKEN_PATTERN = re.compile(r"[A-Za-z0-9._~+/=-]{22,256}")
_HOST_PATTERN = re.compile(r"[a-z0-9]([a-z0-9._-]{0,251}[a-z0-9])?|\[[0-9a-f:.]{2,45}\]")
KEEP_ALIVE_SECONDS, SHUTDOWN_SECONDS = 5, 10
BACKLOG = 512  # connections that wait to be accepted


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
        given, where = os.environ.get(TOKEN_VARIABLE, "").strip(), TOKEN_VARIABLE
        if not given:
            return secrets.token_urlsafe(32)
    if not _TOKEN_PATTERN.fullmatch(given):
        raise UsageError(
            f"The token in {where} is not 22 to 256 letters, digits or -._~+/= without blanks. "
            "Make one with: python -c 'import secrets; print(secrets.token_urlsafe())'"
        )
    return given


def bind(host: str, port: int) -> socket.socket:
    """A socket bound to an address; nobody can connect before it listens.

    Raises:
        UsageError: the port is in use or not allowed, or the address is not of this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        made = socket.socket(family, kind, protocol)
    except OSError as error:
        raise UsageError(f"{host!r} is not an address: {error.strerror}. Give an address of this machine.") from error
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
    except OSError as error:
        made.close()
        if error.errno == errno.EADDRINUSE:
            raise _in_use(host, port) from error
        raise UsageError(f"Cannot listen on {host} port {port}: {error.strerror}. Give another address.") from error
    return made


def open_folder(folder: Path, keep_photos: bool) -> tuple[Catalog, Journal, PhotoEncoder]:
    """The catalog of a model folder, its journal and its encoder, warmed up.

    Raises:
        NoInput, DataError: there is no model, or it is damaged or made with another encoder.
        UsageError: it is a catalog of sounds.
    """
    catalog = Catalog.open(folder)
    encoder = photo_encoder(catalog)
    return catalog, Journal.open(folder, keep_photos), encoder


def _in_use(host: str, port: int) -> UsageError:
    return UsageError(f"Port {port} of {host} is in use. Stop the program that uses it, or give another --port.")


def run(
    service: tuple[Catalog, Journal, PhotoEncoder],
    settings: Settings,
    listener: socket.socket,
    started: Callable[[], None],
) -> None:
    """Serve until a signal ends it; requests in work are answered first.

    Args:
        service: catalog, journal and encoder.
        settings: whom the service answers, and its limits; how many photos at once is measured here.
        listener: a bound socket.
        started: called when clients can connect.

    Raises:
        UsageError: another service has begun to listen on the port.
    """
    warm_up(service[2])
    leave_one_core()
    return_memory()
    largest, quick = measure_batch_size(service[2])
    app = create_app(*service, replace(settings, batch_size=largest, overload_slots=2 * quick))
    try:
        listener.listen(BACKLOG)
    except OSError as error:  # two may be bound to a port before one of them listens
        raise _in_use(*listener.getsockname()[:2]) from error
    started()
    uvicorn.Server(config(app)).run(sockets=[listener])


def config(app: ASGIApp) -> uvicorn.Config:
    """How uvicorn runs the app: it trusts no headers of proxies, and leaves logging to the guard."""
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
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        h11_max_incomplete_event_size=Settings.header_bytes,
    )


def is_local(listener: socket.socket) -> bool:
    """Whether only this machine can connect."""
    return ipaddress.ip_address(listener.getsockname()[0]).is_loopback


def host_names(listener: socket.socket, further: Sequence[str]) -> frozenset[str]:
    """The host names that the service answers to: those of this machine, the address itself, and ``further``.

    Raises:
        UsageError: one is not a host name.
    """
    wrong = next((name for name in further if not _HOST_PATTERN.fullmatch(name.lower())), None)
    if wrong is not None:
        raise UsageError(f"{wrong!r} is not a host name. Give it without http:// and without a port.")
    return LOCAL_HOSTS | {_host_of(listener)} | {name.lower() for name in further}


def address(listener: socket.socket, further: Sequence[str]) -> str:
    """Where the page is, as a browser writes it."""
    own = ipaddress.ip_address(listener.getsockname()[0])
    name = further[0] if further else "127.0.0.1" if own.is_unspecified else _host_of(listener)
    return f"http://{name}:{listener.getsockname()[1]}"


def _host_of(listener: socket.socket) -> str:
    host = listener.getsockname()[0]
    return f"[{host}]" if ":" in host else host
