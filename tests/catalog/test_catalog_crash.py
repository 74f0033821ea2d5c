"""An editor, or a server and its journal, killed at any moment: the catalog opens, and every edit is whole."""

import os
import random
import shutil
import signal
import sqlite3
import threading
import time

import numpy as np
import pytest

from mixtura.catalog import Catalog, Shot
from mixtura.catalog.journal import Journal

ROUNDS = 50


@pytest.fixture(scope="module")
def bundle(new_shop):
    return new_shop("crash", n=200, classes=3, dimension=4, seed=8)


def note_for_ever(shop, seed):
    """What a server's other thread does meanwhile: answers three photos at a time, and notes its answers."""
    rng = np.random.default_rng(seed)
    journal = Journal.open(shop.folder)
    while True:
        rows = rng.standard_normal((3, 4)).astype(np.float32)
        journal.log(shop.decide(["a", "b", "c"], rows), rows)


def edit_for_ever(folder, seed):
    """Enroll three items at a time, merge, remove and undo, beside a journal, until somebody puts an end to it."""
    rng = np.random.default_rng(seed)
    shop = Catalog.open(folder)
    if seed % 2:
        threading.Thread(target=note_for_ever, args=(shop, seed), daemon=True).start()
    while True:
        rows = 50 * rng.standard_normal(4) + rng.standard_normal((3, 4))
        effect = shop.enroll(f"n{rng.integers(10**9)}", [Shot(row.astype(np.float32), "", "x") for row in rows])
        assert effect.product is not None
        action = rng.integers(4)
        if action == 0:
            shop.undo()
        elif action == 1:
            shop.merge(effect.product.id, "c0")
        elif action == 2:
            shop.remove_product(effect.product.id)


def wait_for_an_edit(path, after):
    """So that the kill falls somewhere in the second or third edit, on machines of any speed."""
    db = sqlite3.connect(path)
    for _ in range(2000):
        if db.execute("SELECT count(*) FROM edit").fetchone()[0] > after:
            break
        time.sleep(0.01)
    db.close()


@pytest.mark.slow
def test_fifty_kills_leave_no_edit_half_done(bundle, tmp_path, assert_whole):
    folder = shutil.copytree(bundle, tmp_path / "shop")
    draw, counts = random.Random(0), []
    for seed in range(ROUNDS):
        child = os.fork()
        if child == 0:
            try:
                edit_for_ever(folder, seed)
            finally:
                os._exit(1)
        wait_for_an_edit(folder / "catalog.sqlite", after=counts[-1] if counts else 0)
        time.sleep(draw.uniform(0.0, 0.3))
        os.kill(child, signal.SIGKILL)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
        counts.append(assert_whole(folder / "catalog.sqlite"))
        assert len(Journal.open(folder).logged(1)) % 3 == 0
    shop = Catalog.open(folder)
    assert counts[-1] >= ROUNDS  # none was killed before its first edit
    assert shop.revision == counts[-1]
    for _ in range(3):
        shop.undo()
    assert len(Journal.open(folder).logged(1)) > 0
    assert all(product.items > 0 for product in shop.products())
    assert len(shop.model.classes) == len(shop.products())
