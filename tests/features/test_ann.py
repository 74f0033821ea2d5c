"""The approximate index against exact search."""

import sys

import pytest
import torch

from mixtura.errors import MissingExtra, UsageError, WrongDimension
from mixtura.features.ann import Inverted, recall
from mixtura.features.neighbors import Exact, knn


def rows(n, dimension=8, seed=0):
    return torch.randn(n, dimension, generator=torch.Generator().manual_seed(seed))


def test_with_every_list_looked_into_it_is_exact():
    base, query = rows(600), rows(50, seed=1)
    index = Inverted.build(base)
    index._index.nprobe = index._index.nlist
    similarity, found = index.search(query, 7)
    expected = knn(query, base, 7)
    assert torch.equal(found, expected[1])
    torch.testing.assert_close(similarity, expected[0], atol=1e-6, rtol=0)
    assert recall(index, base, 5) == 1.0


def test_recall_is_the_share_of_true_neighbors():
    base = rows(3000, dimension=16)
    index = Inverted.build(base)
    order = torch.randperm(len(base), generator=torch.Generator().manual_seed(0))[:200]
    true, found = knn(base[order], base, 6)[1].tolist(), index.search(base[order], 6)[1].tolist()
    shares = [
        len((set(a) - {own}) & (set(b) - {own})) / 5 for a, b, own in zip(true, found, order.tolist(), strict=True)
    ]
    assert recall(index, base, 5) == pytest.approx(sum(shares) / 200, abs=1e-12)
    assert 0.2 < recall(index, base, 5) < 1
    assert recall(Exact.build(base), base, 5) == 1.0
    assert recall(Exact.build(base[:1]), base[:1], 5) == 1.0


def test_rows_are_removed_and_added_by_id():
    base = rows(500)
    index = Inverted.build(base)
    assert index.remove(torch.tensor([3, 4, 9999])) == 2 and len(index) == 498
    assert index.search(base[3:4], 1)[1].item() != 3
    index.add(base[3:4], torch.tensor([777]))
    assert index.search(base[3:4], 1)[1].item() == 777


def test_the_same_seed_gives_the_same_index():
    base, query = rows(2000), rows(40, seed=1)
    first, second = (Inverted.build(base, seed=3).search(query, 5) for _ in range(2))
    assert torch.equal(first[1], second[1])


def test_too_few_rows_met_are_marked():
    base = torch.cat([torch.eye(2).repeat_interleave(200, 0)])
    similarity, found = Inverted.build(base).search(torch.tensor([[1.0, 0.0]]), 400)
    assert similarity.shape == (1, 400)
    assert ((found < 0) == similarity.isneginf()).all()


def test_half_precision_and_questions_without_sense():
    index = Inverted.build(rows(100).half())
    assert index.search(rows(2).half(), 3)[0].dtype == torch.float32
    with pytest.raises(UsageError, match="0 neighbors"):
        index.search(rows(1), 0)
    with pytest.raises(WrongDimension, match="8 dimensions and was given 3"):
        index.search(rows(1, dimension=3), 1)
    with pytest.raises(UsageError, match="0 rows"):
        Inverted.build(rows(0))


def test_without_faiss_the_sentence_names_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(MissingExtra, match=r"pip install 'mixtura\[ann\]'"):
        Inverted.build(rows(50))
