"""``mixtura serve``: a catalog behind a page and a REST interface."""

import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from mixtura.cli.output import Output
from mixtura.errors import MissingExtra

Folder = Annotated[Path, typer.Argument(metavar="CATALOG", help="Model folder, as mixtura fit has written it.")]
Host = Annotated[
    str, typer.Option(metavar="ADDRESS", help="Address to listen at; any but 127.0.0.1 needs the token for all.")
]
Port = Annotated[int, typer.Option(min=0, max=65535, metavar="N", help="Port to listen at; 0 takes a free one.")]
TokenFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="File with the token. Default: $MIXTURA_TOKEN, or a new one at each start."),
]
HostName = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME", help="Further name by which browsers reach it. May be given several times."),
]
KeepPhotos = Annotated[
    bool, typer.Option("--keep-photos", help="Keep a small copy of each photo that is asked about, for later review.")
]
Open = Annotated[bool, typer.Option("--open/--no-browser", help="Open the page in the browser of this machine.")]
Reads = Annotated[float, typer.Option(min=0.1, metavar="N", help="Questions that a client may ask in a second.")]
Writes = Annotated[float, typer.Option(min=0.1, metavar="N", help="Changes that a client may make in a second.")]


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
    """Serve a catalog: a page where people drop photos, and a REST interface for programs.

    Prints the address of the page. Who opens it with the token behind the # may change the catalog; on this machine
    everybody may ask. Edits by other commands count from the next request on. No photo is kept unless you say so. Ends
    with Ctrl-C. It needs: pip install 'mixtura[serve]'

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
        if error.name not in {"fastapi", "starlette", "uvicorn"}:
            raise
        raise MissingExtra("The service needs FastAPI and uvicorn. Run: pip install 'mixtura[serve]'") from error
    token, listener = server.token_of(token_file), server.bound(host, port)
    settings = Settings(
        token=token,
        title=catalog.resolve().name,
        public=not server.is_local(listener),
        hosts=server.names(listener, host_name or ()),
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
        out.note("Who has this address with the token may change the catalog. Ctrl-C ends the service.")
        if open:
            webbrowser.open(page)

    server.run(server.opened(catalog, keep_photos), settings, listener, started)
