"""``mixtura extract``: turn photos or sounds into a feature store."""

from mixtura.cli import options
from mixtura.cli.output import Output
from mixtura.recipe import Recipe


@options.takes_recipe(
    options.ENCODER | {"Model": ("data.label", "data.follow_links")},
    output="Folder for the feature store.",
    key="extract.store",
)
def extract(out: Output, recipe: Recipe) -> None:
    """Extract features from photos or sounds once, then fit on them many times.

    The store is a folder of Parquet files; other programs can read it too. It records the encoder, so features of two
    encoders never mix. Run it again with more photos: only new and changed ones are computed. An interrupted run loses
    nothing already written.

    Examples:
      mixtura extract photos/ -o features/
      mixtura extract photos/ -o vit/ --encoder timm:NAME@vit.safetensors
      mixtura extract fashion-mnist -o fashion/ --size 96 --batch-size 64
      mixtura extract sounds/ -o heard/ --encoder logmel
      mixtura fit features/ -o shop                  then fit on the store
    """
    store = options.store_of(recipe, "extract photos/ -o features")
    from mixtura.cli import views
    from mixtura.cli.progress import Bar
    from mixtura.tasks.extract import run

    with Bar(out) as bar:
        made = run(recipe, bar)
    out.result(views.extract_record(made, store), [str(store)], views.extract_view(made, store))
