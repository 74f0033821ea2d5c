"""``mixtura serve``: a catalog over a web page and a REST API."""

import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from mixtura.cli.output import Output
from mixtura.errors import MissingExtra

Folder = Annotated[Path, typer.Argument(metavar="CATALOG", help="Model folder, written by mixtura fit.")]
Host = Annotated[
    str,
    typer.Option(
        metavar="ADDRESS",
        help="Address to listen on; 0.0.0.0 means all. Except on 127.0.0.1, every request needs the token.",
    ),
]
Port = Annotated[int, typer.Option(min=0, max=65535, metavar="N", help="Port to listen on; 0 picks a free one.")]
TokenFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="File with the token. Default: $MIXTURA_TOKEN, or a new token at each start."),
]
HostName = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME", help="Name or address in the URL that others use, if it is not that of --host. Repeatable."
    ),
]
KeepPhotos = Annotated[
    bool, typer.Option("--keep-photos", help="Keep a small copy of each classified photo for later review.")
]
Open = Annotated[bool, typer.Option("--open/--no-browser", help="Open the page in a browser on this machine.")]
Reads = Annotated[
    float, typer.Option(min=0.1, max=10**6, metavar="N", help="Queries per second and client; no limit on 127.0.0.1.")
]
Writes = Annotated[
    float, typer.Option(min=0.1, max=10**6, metavar="N", help="Edits per second and client; no limit on 127.0.0.1.")
]


def serve(
    out: Output,
    catalog: Folder,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    token_file: TokenFile = None,
    host_name: HostName = None,
    keep_photos: KeepPhotos = False,
    open: Open = False,
    reads: Reads = 50.0,
    writes: Writes = 10.0,
) -> None:
    """Serve a catalog: a web page for people and a REST API for programs.

    Prints the address of the page, with the token after the #. Anyone with the token can edit the catalog; anyone on
    this machine can query it. Edits by other commands take effect with the next request. No photo is kept unless you
    ask for it. Press Ctrl-C to stop. Requires: pip install 'mixtura[serve]'

    Examples:
      mixtura serve shop
      mixtura serve shop --port 8080 --open
      mixtura serve shop --host 0.0.0.0 --host-name shop.example.org
      mixtura serve shop --token-file secret --json | jq -r .address
    """
    try:
        from mixtura.web import server
        from mixtura.web.settings import Settings
    except ModuleNotFoundError as error:
        if error.name not in {"fastapi", "starlette", "uvicorn", "python_multipart", "prometheus_client"}:
            raise
        raise MissingExtra(
            "The service needs packages that are not installed. Run: pip install 'mixtura[serve]'"
        ) from error
    token, listener = server.token_of(token_file), server.bind(host, port)
    settings = Settings(
        token=token,
        title=catalog.resolve().name,
        public=not server.is_local(listener),
        hosts=server.host_names(listener, host_name or ()),
        keep_photos=keep_photos,
        read_rate=reads,
        read_burst=max(1, round(2 * reads)),
        write_rate=writes,
        write_burst=max(1, round(2 * writes)),
    )
    address = server.address(listener, host_name or ())
    page = f"{address}/#token={token}"

    def started() -> None:
        record = {"address": address, "token": token, "page": page}
        out.result(record, [page], [f"Serving {catalog} at {page}"])
        out.note("Anyone with this address and its token can edit the catalog. Press Ctrl-C to stop.")
        if open:
            webbrowser.open(page)

    server.run(server.open_folder(catalog, keep_photos), settings, listener, started)
