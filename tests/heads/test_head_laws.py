"""The law kit over every head in the table; a new head is held to it without a line here."""

import pytest
import torch

from mixtura.core.covariance import FAMILIES
from mixtura.heads import HEADS, VARIANTS
from mixtura.names import find
from mixtura.testing.head_laws import HeadLaws

DENSE = {"gaussian", "online", "vmf"}
VARIED = {
    "gaussian": [
        *({"family": family, "components": 1 + i % 2, "rank": 2} for i, family in enumerate(FAMILIES)),
        {"family": "diagonal", "projection": "orthogonal", "width": 3, "freeze": ("prior",)},
        {"family": "full", "projection": "pca", "width": 3},
    ],
    "sdgm": [{"quadratic": "diagonal", "components": 2}, {"quadratic": "full"}],
    "online": [{"components": 2}, {"components": (1, 2, 1), "normalize": False}],
    "vmf": [{"components": 2}, {"shared": True}],
    "prototype": [{"components": (2, 1, 2)}, {"metric": "euclidean", "pool": "best", "components": 2}],
    "linear": [{}, {"start": "zeros"}],
    "random_projection": [{"width": 20, "matrix": "gaussian"}, {"width": 20, "matrix": "orthogonal"}],
}
"""Options that make a difference, and every name that papers use for a head."""

THOROUGH = ("test_compiles", "test_exports_to_onnx")
"""Laws that take seconds: of a head's variants all but the first are slow."""


def variants(name):
    found = list(VARIED.get(name, [{}]))
    return found + [options for kind, options in VARIANTS.values() if kind == name and options not in found]


def slow(law):
    """The same law under a mark of its own."""

    @pytest.mark.slow
    def marked(self):
        law(self)

    return marked


def laws_of(name, i, options):
    attributes = {
        "head_type": find(HEADS, name),
        "options": options,
        "density": name in DENSE,
        "knows": options.get("start") != "zeros",
    }
    return type(
        f"Test{name.title().replace('_', '')}{i or ''}",
        (HeadLaws,),
        attributes | ({law: slow(getattr(HeadLaws, law)) for law in THOROUGH} if i else {}),
    )


for name in HEADS:
    for i, options in enumerate(variants(name)):
        laws = laws_of(name, i, options)
        globals()[laws.__name__] = laws


def test_the_kit_of_heads_runs_without_pytest():
    assert len(globals()["TestLinear"]().run()) >= 12


def test_a_head_that_breaks_a_law_is_caught():
    """Batch statistics, a lost configuration, a clipped parameter: one law each."""
    linear = find(HEADS, "linear")

    class Careless(linear.__mro__[1]):
        from_rows = linear.__dict__["from_rows"]
        name = "careless"

        def __init__(self, dimension, n_classes):
            super().__init__()
            self.dimension, self.n_classes = dimension, n_classes
            self.layer = torch.nn.Linear(dimension, n_classes)
            self.idle = torch.nn.Parameter(torch.ones(1))

        def class_scores(self, x):
            return self.layer(x - x.mean(0)) + self.idle.clamp(2, 3)

        def config(self):
            return {"dimension": self.dimension, "n_classes": self.n_classes + 1}

        def log_prob(self, x):
            return self.class_scores(x).logsumexp(1)

    class Laws(HeadLaws):
        def build(self, x, labels, seed=0):
            torch.manual_seed(seed)
            return Careless(4, 3).eval()

    laws = {
        "test_rows_are_judged_one_by_one": AssertionError,
        "test_config_and_state_are_the_head": RuntimeError,
        "test_a_density_is_consistent_or_refused": AssertionError,
        "test_half_precision_rows_give_single_precision_heads": RuntimeError,
    }
    for law, error in laws.items():
        with pytest.raises(error):
            getattr(Laws(), law)()
