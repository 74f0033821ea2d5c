"""A package of someone else: one covariance family, head, encoder, data set and objective, in one file."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from mixtura.core.covariance import Diagonal
from mixtura.core.covariance.protocol import TensorRecord
from mixtura.datasets.items import Dataset, Item
from mixtura.encoders.common import library_versions, squash, squash_steps, to_tensor
from mixtura.heads.base import Head
from mixtura.identity import fingerprint

COLORS = {"leaf": (40, 150, 60), "plum": (140, 40, 140), "rust": (190, 80, 30), "sky": (90, 150, 220)}
PHOTOS_A_CLASS = 15


@dataclass(frozen=True)
class Blend(TensorRecord):
    """A variance a component and feature, each half way to the one that is common to all components."""

    variance: torch.Tensor
    name: ClassVar[str] = "blend"

    score = staticmethod(Diagonal.score)
    score_tiled = staticmethod(Diagonal.score_tiled)
    second = staticmethod(Diagonal.second)
    second_by_label = staticmethod(Diagonal.second_by_label)
    recenter = staticmethod(Diagonal.recenter)
    truncate = staticmethod(Diagonal.truncate)
    variances = staticmethod(Diagonal.variances)

    @property
    def n_parameters(self):
        return self.variance.numel()

    def log_peak(self, dimension):
        return Diagonal(self.variance).log_peak(dimension)

    def operands(self, mean):
        return Diagonal(self.variance).operands(mean)

    @classmethod
    def estimate(cls, moments, floor, prior):
        centered = moments.centered()
        common = centered.second.sum(0) / centered.weight.sum()
        own = prior.shrink(prior.blend(centered.second, centered.weight, common))
        return cls((own + common) / 2 + floor)

    @classmethod
    def initial(cls, n_components, dimension, rank):
        return cls(torch.ones(n_components, dimension))

    def unconstrained(self):
        return {"log_variance": self.variance.log()}

    @classmethod
    def constrained(cls, free):
        return cls(free["log_variance"].exp())

    def scaled(self, factor):
        return Blend(self.variance * factor.square())

    def shrunk(self, prior):
        return Blend(prior.shrink(self.variance))

    def precision_matmul(self, mean):
        return mean / self.variance

    def sample(self, index, dimension, generator):
        return Diagonal(self.variance).sample(index, dimension, generator)

    def pooled(self, share, deviation):
        return Blend(Diagonal(self.variance).pooled(share, deviation).variance)

    def dense(self, n_components, dimension):
        return torch.diag_embed(self.variance)


class Nearest(Head):
    """One point a class; the nearer, the more likely, by a scale that is learned."""

    name = "nearest"
    multi_component = False

    def __init__(self, dimension, n_classes):
        super().__init__()
        self.dimension, self.n_classes = dimension, n_classes
        self.point = nn.Parameter(torch.zeros(n_classes, dimension))
        self.log_scale = nn.Parameter(torch.zeros(()))

    @classmethod
    def from_rows(cls, x, labels, n_classes, *, components=1, seed=0, scale: float = 1.0):
        head = cls(x.shape[1], n_classes).to(x.dtype)
        with torch.no_grad():
            head.point.copy_(torch.stack([x[labels == c].mean(0) for c in range(n_classes)]))
            head.log_scale.fill_(torch.tensor(scale).log())
        return head

    def config(self):
        return {"dimension": self.dimension, "n_classes": self.n_classes}

    @torch.no_grad()
    def set_temperature(self, degrees):
        self.log_scale.sub_(torch.tensor(degrees).log())

    def class_scores(self, x):
        x = x.to(self.point.dtype)
        return self.log_scale.exp() * (x @ self.point.T - self.point.square().sum(1) / 2)


class Grid:
    """The average color of each of 4 x 4 fields of a photo."""

    name = "outside:Grid"
    dimension = 48
    draft = None

    def __init__(self, size=None, weights=None, device="cpu"):
        self.identity = {"name": self.name, "preprocessing": "4 x 4 fields, bicubic", "dtype": "float32"}
        self.fingerprint = fingerprint(self.identity)
        self.versions = library_versions()

    def prepare(self, image):
        return to_tensor(squash(image, 16))

    @torch.inference_mode()
    def encode(self, batch):
        return self.graph()(batch)

    def graph(self):
        return Fields()

    def steps(self):
        return squash_steps(16)


class Gray(Grid):
    """An encoder that does not say how it is found again."""

    name = "gray"


class Silent:
    """What is built as an encoder is, and is none."""

    def __init__(self, size=None, weights=None, device="cpu"):
        pass


class Fields(nn.Module):
    """The arithmetic of the encoder."""

    def forward(self, batch):
        return functional.avg_pool2d(batch.float() / 255, 4).flatten(1)


def photo(label, number):
    """A noisy patch of the color of its class."""
    rng = np.random.default_rng([number, sum(label.encode())])
    color = np.array(COLORS[label]) + rng.normal(0, 10, 3)
    return (color + rng.normal(0, 25, (16, 16, 3))).clip(0, 255).astype(np.uint8)


def load(root=None, label="fine"):
    """Patches of four colors; the light ones and the dark ones, where coarse labels are asked for."""
    kinds = {"leaf": "dark", "plum": "dark", "rust": "light", "sky": "light"}
    made = [(f"{name}/{i}", photo(name, i), name) for name in COLORS for i in range(PHOTOS_A_CLASS)]
    items = tuple(Item(id, id, pixels, name, superlabel=kinds[name]) for id, pixels, name in made)
    return Dataset("patches", items).at_level(label)


@dataclass(frozen=True)
class Brier:
    """The squared distance of the posterior from the label, where the label may be smoothed."""

    reads: ClassVar[str] = "head"
    needs_density: ClassVar[bool] = False
    label_smoothing: float = 0.0

    @classmethod
    def from_options(cls, label_smoothing=0.0):
        return cls(label_smoothing)

    def __call__(self, head, x, labels, weight=None):
        target = functional.one_hot(labels, head.n_classes) * (1 - self.label_smoothing)
        loss = (head(x).exp() - target - self.label_smoothing / head.n_classes).square().sum(-1)
        return loss.mean() if weight is None else (loss * weight).sum() / weight.sum()
