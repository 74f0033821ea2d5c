"""Class decisions of the model that a folder had, beside those of the one whose classes have subclasses."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mixtura.datasets.split import read_split
from mixtura.features.records import Features
from mixtura.files import is_file_at, is_there
from mixtura.formats import percent
from mixtura.identity import differences
from mixtura.model import bundle
from mixtura.model.model import Model
from mixtura.pipeline import training_set
from mixtura.recipe import Recipe
from mixtura.records.decision import Evaluation
from mixtura.sections import BOTH
from mixtura.tasks.evaluate import evaluate


@dataclass(frozen=True)
class EarlierModel:
    """The model of one level that a folder had before a fit, with the part of each item that it was fitted on."""

    model: Model
    split: Mapping[str, str]

    def compared(self, model: Model, features: Features, after: Evaluation) -> str:
        """A sentence on the class decisions of both models on the same test items; empty if there is nothing to say.

        Args:
            model: that takes its place.
            features: of all items, with their final split.
            after: of that model on the test part.
        """
        if self.model.classes != model.classes or differences(self.model.identity, features.identity):
            return ""
        test = features.select_split("test")
        if any(self.split.get(id) != "test" for id in test.id):
            return (
                "The model that was in the folder knows the same classes. It was fitted on items that test this one, "
                "so the two are not compared."
            )
        before = evaluate(self.model, test).metrics
        tops, losses = ([metrics[name] for metrics in (before, after.metrics)] for name in ("top1", "nll"))
        return (
            f"Classes on the same {len(test):,} test items, without and with subclasses: accuracy {percent(tops[0])} "
            f"and {percent(tops[1])}, NLL {losses[0]:.3f} and {losses[1]:.3f} nats."
        )


def earlier_of(recipe: Recipe, output: Path) -> EarlierModel | None:
    """The model to compare a fit of both levels with; ``None`` without one, or where it has subclasses itself.

    Call it before the fit, which adds new items to the split.

    Raises:
        BundleError: the model in the folder is damaged.
    """
    split = training_set.split_path(recipe)
    if recipe.data.level != BOTH or not is_file_at(output / bundle.CONFIG_FILE) or not is_there(split):
        return None
    model = bundle.from_pretrained(output)
    return EarlierModel(model, read_split(split)) if model.subclasses is None else None
