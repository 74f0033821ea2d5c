"""``mixtura train``: train the encoder's network on your photos, and make a model and its report."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import RenderableType
from rich.text import Text

from mixtura.cli import options
from mixtura.cli.output import Output, one_line, plain_table, shown
from mixtura.recipe import Recipe
from mixtura.training_sections import TrainSection

if TYPE_CHECKING:
    from mixtura.records.training_course import TrainingCourse
    from mixtura.tasks.train import TrainReport

Fresh = Annotated[bool, typer.Option("--fresh", help="Move an earlier run in the folder aside and start again.")]


@options.takes_recipe(
    {
        "Encoder": ("encoder", "extract.workers"),  # a batch size here would be taken for that of training
        "Training": ("train", "search.trials"),
        "Model": ("data", "decision", "seed"),
    },
    output="Folder for the model, its encoder, its features and its report.",
    default=Recipe(train=TrainSection()),
    takes=options.PHOTOS_HELP,
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
    folder = options.need_output(recipe, "train photos/ -o shop")
    from mixtura.cli import views
    from mixtura.cli.page import TRAINING_PAGE, training_writer, write_page
    from mixtura.cli.progress import Bar
    from mixtura.tasks import train_together
    from mixtura.tasks.train import run
    from mixtura.training import processes

    if train_together.follows():
        raise typer.Exit(train_together.follow(recipe))
    again = fresh and not processes.restarted()
    with train_together.leading(recipe), Bar(out, next="Fitting the model") as bar:
        made = run(recipe, again, bar, training_writer(folder))
    page = write_page(made.fit.bundle_path, made.fit.evaluation)
    out.result(
        views.fit_record(made.fit, page) | {"training": training_record(made, folder / TRAINING_PAGE)},
        [str(made.fit.bundle_path)],
        [*views.fit_view(made.fit, page), *training_view(made, folder / TRAINING_PAGE)],
    )


def training_record(made: "TrainReport", page: Path) -> dict[str, Any]:
    """Return what training has come to, JSON-ready."""
    training = made.training
    names = ("outcome", "replaced", "part", "share", "epochs")
    gains = {gain.name: {"before": gain.before, "after": gain.after} for gain in training.gains}
    record = {name: getattr(training, name) for name in names} | {"gains": gains, "page": page}
    return record | ({"trials": [asdict(one) for one in made.course.trials]} if made.course.trials else {})


def training_view(made: "TrainReport", page: Path) -> list[RenderableType]:
    """Return the trials, what was gained and lost, if anything was trained, the outcome in a sentence, and the page."""
    from mixtura.report.training import GAINS, gain_texts

    training = made.training
    said = Text(f"{one_line(training.outcome)}\n", style="" if training.replaced else "yellow")
    rows = [(GAINS[gain.name], *gain_texts(gain)[:2]) for gain in training.gains]
    gains = [plain_table(("Test photos", "Frozen", "Trained"), rows, right=2)] if rows else []
    return [*_trials_view(made.course), *gains, said, Text(f"Training: {shown(str(page))}\n")]


def _trials_view(course: "TrainingCourse") -> list[RenderableType]:
    from mixtura.report.training import trial_settings, trial_value

    if not course.trials:
        return []
    keys, settings = trial_settings(course.trials)
    rows = [
        (str(one.number), *own, trial_value(one, course.metric), one_line(one.note))
        for one, own in zip(course.trials, settings, strict=True)
    ]
    return [plain_table(("Trial", *keys, course.metric.replace("_", " "), "Note"), rows)]
