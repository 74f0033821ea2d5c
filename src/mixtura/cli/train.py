"""``mixtura train``: train the encoder's network on your photos, and make a model and its report."""

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import RenderableType
from rich.text import Text

from mixtura.cli import options
from mixtura.cli.output import Output, one_line, plain_table
from mixtura.formats import percent
from mixtura.recipe import Recipe
from mixtura.training_sections import TrainSection

if TYPE_CHECKING:
    from mixtura.records.training import Gain, NetworkTraining

Fresh = Annotated[bool, typer.Option("--fresh", help="Move an earlier run in the folder aside and start again.")]

GAINS = {
    "accuracy": "Right class (top-1)",
    "nll": "Loss of the class (NLL, nats)",
    "auroc_unknown": "In the catalog or not (AUROC)",
    "auroc_left_out": "The same, for classes left out (AUROC)",
}


@options.takes_recipe(
    options.ENCODER | {"Training": ("train",), "Model": ("data", "decision", "seed")},
    output="Folder for the model, its encoder, its features and its report.",
    default=Recipe(train=TrainSection()),
)
def train(out: Output, recipe: Recipe, fresh: Fresh = False) -> None:
    """Train the encoder's network on your photos, then fit a model to its features.

    DATA is a folder with one sub-folder per class, as for mixtura fit. Validation photos decide: if the trained network
    is not clearly better, the model of the frozen one is kept, and you are told so. Test photos are never trained on.
    If a run is interrupted, run the same command again: it continues where it stopped.

    Examples:
      mixtura train photos/ -o shop --minutes 5      the usual way
      mixtura train photos/ -o shop --fast --minutes 5
      mixtura train photos/ -o shop --trainable last --epochs 20
      mixtura train photos/ -o shop --encoder cnn --size 64
      mixtura train photos/ -o shop --set train.balance=1 --fresh
    """
    options.need_output(recipe, "train photos/ -o shop")
    from mixtura.cli import views
    from mixtura.cli.page import write_page
    from mixtura.cli.progress import Bar
    from mixtura.tasks.train import run

    with Bar(out, next="Fitting the model") as bar:
        made = run(recipe, fresh, bar)
    page = write_page(made.fit.bundle_path, made.fit.evaluation)
    out.result(
        views.fit_record(made.fit, page) | {"training": training_record(made.training)},
        [str(made.fit.bundle_path)],
        [*views.fit_view(made.fit, page), *training_view(made.training)],
    )


def training_record(training: "NetworkTraining") -> dict[str, Any]:
    """Return what training has come to, JSON-ready."""
    names = ("outcome", "replaced", "part", "share", "epochs")
    gains = {gain.name: {"before": gain.before, "after": gain.after} for gain in training.gains}
    return {name: getattr(training, name) for name in names} | {"gains": gains}


def training_view(training: "NetworkTraining") -> list[RenderableType]:
    """Return the table of what was gained and lost, if anything was trained, and the outcome in a sentence."""
    said = Text(f"{one_line(training.outcome)}\n", style="" if training.replaced else "yellow")
    if not training.gains:
        return [said]
    rows = [(GAINS[gain.name], *_both(gain)) for gain in training.gains]
    return [plain_table(("Test photos", "Frozen", "Trained"), rows, right=2), said]


def _both(gain: "Gain") -> tuple[str, str]:
    def shown(value: float | None) -> str:
        if value is None:
            return ""
        return f"{value:.3f}" if gain.name == "nll" else percent(value)

    return shown(gain.before), shown(gain.after)
