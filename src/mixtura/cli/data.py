"""Public data sets by name: what there is, and where it lies."""

from pathlib import Path
from typing import Annotated

import typer

from mixtura.cli.output import Output

Name = Annotated[str, typer.Argument(metavar="NAME", help="A name from mixtura data list.")]
Folder = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="FOLDER", help="Where to put it. Default: the cache folder."),
]


def list_sets(out: Output) -> None:
    """List the data that can be named instead of a folder.

    Examples:
      mixtura data list
      mixtura fit digits -o digits                   a name stands for data
    """
    from mixtura.cli import views
    from mixtura.tasks.data import list as find_sets

    found = find_sets()
    out.result(found, [f"{name}\t{about}" for name, about in found.items()], [views.sets_view(found)])


def get(out: Output, name: Name, output: Folder = None) -> None:
    """Download a public data set, and check every file against its known checksum.

    A set that is already here is not downloaded again.

    Examples:
      mixtura data get fashion-mnist
      mixtura data get mnist -o data/mnist
    """
    from mixtura.cli import views
    from mixtura.tasks.data import get as get_set

    folder = get_set(name, output)
    out.result({"name": name, "folder": folder}, [str(folder)], [views.written(folder)])
