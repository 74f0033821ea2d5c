"""Mixtures of Gaussians on deep features: class, typicality, subclass, samples and edits, from densities that add up.

The names below are imported when they are first used, so ``import mixtura`` costs nothing.
"""

from typing import TYPE_CHECKING, Any

from mixtura import forks as forks

if TYPE_CHECKING:
    from mixtura.core.covariance import FAMILIES as FAMILIES
    from mixtura.core.covariance import Prior as Prior
    from mixtura.core.mixture import Mixture as Mixture
    from mixtura.core.moments import Moments as Moments
    from mixtura.errors import MixturaError as MixturaError
    from mixtura.features.records import Features as Features
    from mixtura.features.records import Rows as Rows
    from mixtura.features.store import FeatureStore as FeatureStore
    from mixtura.heads.gaussian import GaussianHead as GaussianHead
    from mixtura.model.bundle import from_pretrained as from_pretrained
    from mixtura.model.bundle import save_pretrained as save_pretrained
    from mixtura.model.model import Model as Model
    from mixtura.pipeline.factory import load_decoder as load_decoder
    from mixtura.recipe import Recipe as Recipe
    from mixtura.recipe import load_recipe as load_recipe
    from mixtura.recipe import resolve as resolve
    from mixtura.records.decision import Decision as Decision
    from mixtura.records.decision import Evaluation as Evaluation
    from mixtura.sklearn import GaussianMixture as GaussianMixture
    from mixtura.sklearn import MixtureClassifier as MixtureClassifier
    from mixtura.sweeps.grid import run as sweep
    from mixtura.tasks.evaluate import run as evaluate
    from mixtura.tasks.extract import run as extract
    from mixtura.tasks.fit import fit as fit
    from mixtura.tasks.predict import load as load
    from mixtura.tasks.predict import run as predict
    from mixtura.training.kept_embedder import load_embedder as load_embedder

__version__ = "0.1.0"

PUBLIC = {
    "FAMILIES": "mixtura.core.covariance:FAMILIES",
    "Decision": "mixtura.records.decision:Decision",
    "Evaluation": "mixtura.records.decision:Evaluation",
    "FeatureStore": "mixtura.features.store:FeatureStore",
    "Features": "mixtura.features.records:Features",
    "GaussianHead": "mixtura.heads.gaussian:GaussianHead",
    "GaussianMixture": "mixtura.sklearn:GaussianMixture",
    "MixturaError": "mixtura.errors:MixturaError",
    "Mixture": "mixtura.core.mixture:Mixture",
    "MixtureClassifier": "mixtura.sklearn:MixtureClassifier",
    "Model": "mixtura.model.model:Model",
    "Moments": "mixtura.core.moments:Moments",
    "Prior": "mixtura.core.covariance:Prior",
    "Recipe": "mixtura.recipe:Recipe",
    "Rows": "mixtura.features.records:Rows",
    "evaluate": "mixtura.tasks.evaluate:run",
    "extract": "mixtura.tasks.extract:run",
    "fit": "mixtura.tasks.fit:fit",
    "from_pretrained": "mixtura.model.bundle:from_pretrained",
    "load": "mixtura.tasks.predict:load",
    "load_decoder": "mixtura.pipeline.factory:load_decoder",
    "load_embedder": "mixtura.training.kept_embedder:load_embedder",
    "load_recipe": "mixtura.recipe:load_recipe",
    "predict": "mixtura.tasks.predict:run",
    "resolve": "mixtura.recipe:resolve",
    "save_pretrained": "mixtura.model.bundle:save_pretrained",
    "sweep": "mixtura.sweeps.grid:run",
}
"""Where each public name lives."""

__all__ = [
    "FAMILIES",
    "Decision",
    "Evaluation",
    "FeatureStore",
    "Features",
    "GaussianHead",
    "GaussianMixture",
    "MixturaError",
    "Mixture",
    "MixtureClassifier",
    "Model",
    "Moments",
    "Prior",
    "Recipe",
    "Rows",
    "evaluate",
    "extract",
    "fit",
    "from_pretrained",
    "load",
    "load_decoder",
    "load_embedder",
    "load_recipe",
    "predict",
    "resolve",
    "save_pretrained",
    "sweep",
]


def __getattr__(name: str) -> Any:
    if name not in PUBLIC:
        raise AttributeError(f"module 'mixtura' has no attribute {name!r}")
    from mixtura.names import find

    return find(PUBLIC, name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
