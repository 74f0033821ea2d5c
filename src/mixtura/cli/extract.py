"""``mixtura extract``: photos or sounds in, a feature store out."""

from mixtura.cli import options
from mixtura.cli.output import Output
from mixtura.recipe import Recipe


@options.takes_recipe(
    options.ENCODER | {"Model": ("data.label",)}, output="Folder for the feature store.", key="extract.store"
)
def extract(out: Output, recipe: Recipe) -> None:
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
    store = options.store_of(recipe, "extract photos/ -o features")
    from mixtura.cli import views
    from mixtura.cli.progress import Bar
    from mixtura.tasks.extract import run

    with Bar(out) as bar:
        made = run(recipe, bar)
    out.result(views.extract_record(made, store), [str(store)], views.extract_view(made, store))
