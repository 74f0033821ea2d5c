"""List, download and import data sets."""

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from mixtura.cli.output import Output
from mixtura.formats import count

Name = Annotated[str, typer.Argument(metavar="NAME", help="A name from mixtura data list.")]
Folder = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="FOLDER", help="Folder for the data. Default: the cache folder."),
]


def list_sets(out: Output) -> None:
    """List the public data sets: what they are, where to get them, and the files to put into a folder.

    Give the folder of a set as DATA: its files tell which set it is. Those that come with mixtura, or that data get
    has downloaded, need only their name.

    Examples:
      mixtura data list
      mixtura data list --json | jq .svhn            also the published checksums
      mixtura fit digits -o digits                   use a name as DATA
    """
    from mixtura.cli import views
    from mixtura.tasks.data import list as find_sets

    found = find_sets()
    lines = ["\t".join((name, one["about"], one["get"], one["layout"])) for name, one in found.items()]
    out.result(found, lines, [views.sets_view(found)])


def get(out: Output, name: Name, output: Folder = None) -> None:
    """Download a public data set and verify the checksum of every file.

    Data already on this machine is not downloaded again.

    Examples:
      mixtura data get fashion-mnist
      mixtura data get mnist -o data/mnist
    """
    from mixtura.cli import views
    from mixtura.tasks.data import get as get_set

    folder = get_set(name, output)
    out.result({"name": name, "folder": folder}, [str(folder)], [views.written(folder)])


Source = Annotated[Path, typer.Argument(metavar="SOURCE", help="File or folder with the features.")]
Store = Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="Folder for the feature store.")]
Layout = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="npy, npz, parquet, or dgmmc (one .pt file per item). Default: by extension."),
]
LabelFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Labels for a .npy file, or the list for a dgmmc folder; for Train and Test, a folder with a list for "
        "each, or a public set.",
    ),
]
EncoderName = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Name of the encoder, stored with the features. Default: the folder above Train and Test, or imported.",
    ),
]
Part = Annotated[str | None, typer.Option(metavar="PART", help="Split of all rows: train, val or test.")]


def import_features(
    out: Output,
    source: Source,
    output: Store,
    layout: Layout = None,
    labels: LabelFile = None,
    encoder: EncoderName = None,
    split: Part = None,
) -> None:
    """Import features made by another program into a feature store.

    No code in a file is ever run: pickled objects are refused, and .pt files are read as plain tensors only.

    Examples:
      mixtura data import clip.npz -o clip/    arrays embedding and label
      mixtura data import x.npy -o clip/ --labels y.npy --encoder clip-vit-l14
      mixtura data import Train/ -o clip/ --layout dgmmc --labels train.csv
      mixtura data import Features/MNIST/CLIP -o clip/    DGMMC's Train and Test
      mixtura fit clip/ -o model               then fit on the store
    """
    from mixtura.cli import views
    from mixtura.tasks.import_features import run

    notes: list[str] = []
    store = run(source, output, layout, labels, encoder, split, notes.append)
    record = {"store": store.path, "dimension": store.dimension, "encoder": store.identity["name"]}
    items = dict(Counter(part or "none" for part in store.facts().split).most_common())
    said = ", ".join(f"{count(number, 'item')} of split {part}" for part, number in items.items())
    out.result(
        record | {"items": items, "notes": notes},
        [str(store.path)],
        [Text(f"{said}; {store.dimension} numbers each"), *views.notes_view(notes), views.written(store.path)],
    )
