"""``mixtura extract``: photos or sounds in, a feature store out."""

from typing import Annotated

import typer

from mixtura.cli import options
from mixtura.cli.output import Output

StoreFolder = Annotated[
    str | None, typer.Option("--output", "-o", metavar="FOLDER", help="Folder for the feature store.")
]


def extract(
    out: Output,
    data: options.Data = None,
    output: StoreFolder = None,
    recipe: options.RecipeFile = None,
    settings: options.Settings = None,
    dry_run: options.DryRun = False,
    encoder: options.Encoder = None,
    size: options.Size = None,
    weights: options.Weights = None,
    device: options.Device = None,
    batch_size: options.BatchSize = None,
    workers: options.Workers = None,
    label: options.Label = None,
) -> None:
    """Turn photos or sounds into features once, to fit on them many times.

    The store is a folder of Parquet files that other programs read too. It remembers the encoder, so that features of
    two encoders never mix. Run it again with more photos: only new and changed ones are computed, and an interrupted
    run loses nothing that was written.

    Examples:
      mixtura extract photos/ -o features/
      mixtura extract photos/ -o vit/ --encoder timm:NAME@vit.safetensors
      mixtura extract fashion-mnist -o fashion/ --size 96 --batch-size 64
      mixtura extract sounds/ -o heard/ --encoder logmel
      mixtura fit features/ -o shop                  then fit on them
    """
    resolved = options.recipe_of(
        data,
        recipe,
        settings,
        store=output,
        encoder=encoder,
        size=size,
        weights=weights,
        device=device,
        batch_size=batch_size,
        workers=workers,
        label=label,
    )
    if dry_run:
        return options.print_recipe(out, resolved)
    store = options.store_of(resolved, "extract photos/ -o features")
    from mixtura.cli import views
    from mixtura.cli.progress import Bar
    from mixtura.tasks.extract import run

    with Bar(out) as bar:
        made = run(resolved, bar)
    out.result(views.extract_record(made, store), [str(store)], views.extract_view(made, store))
    return None
