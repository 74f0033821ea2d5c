"""Augmented photos are input of every encoder of photos, of the shape and kind of its prepared photos."""

import numpy as np
import pytest
import torch

from mixtura.datasets.synthetic import stripes
from mixtura.encoders import ENCODERS
from mixtura.encoders.common import split_name
from mixtura.interfaces import TrainableEncoder
from mixtura.names import find
from mixtura.training.augment import VIEWS, Augmentation, View
from mixtura.training.loaders import Loader
from mixtura.training.order import Order


@pytest.mark.parametrize("name", ["lite0", "tiny", "pixels", "timm:test_resnet@{weights}", "hf:{vit}"])
def test_every_encoder_takes_views(request, name):
    places = {"weights": request.getfixturevalue("resnet_weights"), "vit": request.getfixturevalue("vit_folder")}
    key, options = split_name(name.format(**places))
    encoder, photos = find(ENCODERS, key)(**options, size=48), stripes(classes=2, per_class=4, size=70)
    views = Augmentation(tuple(View(name, 0.5) for name in VIEWS))
    order, labels = Order(0, 8, 4), np.arange(8) // 4
    plain, found, again = (
        list(Loader(photos, encoder, labels, augmentation=own, workers=workers).batches(order, 0))
        for own, workers in ((None, 0), (views, 0), (views, 3))
    )
    for one, other, third in zip(plain, found, again, strict=True):
        assert one["x"].shape == other["x"].shape and one["x"].dtype == other["x"].dtype
        assert not torch.equal(one["x"], other["x"]) and torch.equal(other["x"], third["x"])
        assert encoder.encode(other["x"]).isfinite().all()
        if isinstance(encoder, TrainableEncoder):
            assert encoder.network()(other["x"]).isfinite().all()
