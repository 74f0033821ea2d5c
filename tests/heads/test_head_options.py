"""Every option of every head can be reached, and a wrong one is told before there are rows."""

import inspect

import pytest
import torch

from mixtura.errors import UsageError
from mixtura.heads import HEADS
from mixtura.heads.options import check_options, options_of
from mixtura.names import find

TAKEN = {
    "gaussian": {"freeze", "projection", "width"},
    "sdgm": {"quadratic", "most_bytes"},
    "online": {"normalize", "memory", "momentum", "floor"},
    "vmf": {"shared"},
    "prototype": {"metric", "pool"},
    "linear": {"start"},
    "random_projection": {"width", "matrix"},
}
VALUES = {
    "freeze": ["mean"],
    "projection": "pca",
    "width": 3,
    "quadratic": "full",
    "most_bytes": 1e9,
    "normalize": False,
    "memory": 16,
    "momentum": 0.5,
    "floor": 0.1,
    "shared": True,
    "metric": "euclidean",
    "pool": "best",
    "start": "zeros",
    "matrix": "orthogonal",
}


def kind_of(name):
    return find(HEADS, name)


@pytest.mark.parametrize("name", HEADS)
def test_the_options_of_a_head_are_those_of_its_signature(name):
    assert set(options_of(kind_of(name))) == TAKEN[name]


@pytest.mark.parametrize("name", HEADS)
def test_every_option_has_its_effect_on_the_head(name):
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % 3
    x = torch.randn(60, 5, generator=generator) + 2 * torch.nn.functional.one_hot(labels, 5)
    given = {option: VALUES[option] for option in TAKEN[name]}
    check_options(name, kind_of(name), given)
    head = kind_of(name).from_rows(x, labels, 3, **given)
    assert head(x).shape == (60, 3)
    built = inspect.signature(kind_of(name)).parameters
    config = head.config()
    assert {option: config[option] for option in given if option in built} == {
        k: v for k, v in given.items() if k in built
    }


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("prototype", {"metrc": "cosine"}, r"no option 'metrc' .*Did you mean 'metric'\? Known: metric, pool"),
        (
            "prototype",
            {"metric": 3},
            r"option 'metric' .* is 3, but it should be text\. Its options: metric, pool",
        ),
        ("prototype", {"metric": "euclid"}, "no metric 'euclid'"),
        ("vmf", {"shared": "yes"}, r"is 'yes', but it should be true or false\. Its options: shared"),
        ("gaussian", {"freeze": "mean"}, r"is 'mean', but .*Its options: freeze, projection, width"),
        ("gaussian", {"freeze": ["means"]}, "cannot freeze 'means'"),
        ("gaussian", {"projection": "lda", "width": 2}, "no input projection 'lda'"),
        ("gaussian", {"width": 2}, "Set both projection"),
        ("gaussian", {"family": "full"}, "no option 'family'"),
        ("online", {"momentum": 2.0}, "omentum"),
        ("random_projection", {"matrix": "dense"}, "no random matrix 'dense'"),
        ("sdgm", {"quadratic": "cubic"}, "cubic"),
        ("linear", {"shrinkage": 0.1}, "no option 'shrinkage'"),
    ],
)
def test_a_wrong_option_is_one_sentence_that_names_those_there_are(name, given, said):
    with pytest.raises(UsageError, match=said) as caught:
        check_options(name, kind_of(name), given)
    assert caught.value.exit_code == 2 and "\n" not in str(caught.value)
