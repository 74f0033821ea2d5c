"""Small shops on the disk, with the store of their features beside them."""

import pytest

from mixtura.catalog import Catalog
from mixtura.features import imports
from mixtura.recipe import resolve
from mixtura.tasks import fit


@pytest.fixture(scope="session")
def new_shop(cloud, tmp_path_factory):
    """A function that makes a model with its catalog from random features."""

    def make(name, **samples):
        folder = tmp_path_factory.mktemp(name)
        imports.save(cloud(**samples), folder / "store")
        fit.run(resolve({"data.kind": "features", "data.root": folder / "store", "output": folder / "shop"}))
        Catalog.open(folder / "shop").close()
        return folder / "shop"

    return make
