"""Subclasses of superclasses: scores against the definition, their shares, and one problem for each superclass."""

import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize
from torch.testing import assert_close

from mixtura.core import balanced
from mixtura.core.balanced import Balance, Dense, assign
from mixtura.core.ownership import mask_others
from mixtura.core.two_levels import SubclassScores, assign_within, owners, share_subclasses, superclass_table
from mixtura.errors import DataError, NonFinite, UsageError

EXACT = Balance(tolerance=1e-9, steps=5000)


def model(n=60, d=5, k=7, c=3, seed=0, **options):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    superclass = torch.arange(n).remainder(c + 1).clamp_max(c - 1)  # the last one has twice as many
    mean, class_mean = draw(k, d), draw(c, d)
    return SubclassScores(draw(n, d), superclass, mean, superclass_table(mean, class_mean, 0.5, **options)), class_mean


@pytest.mark.parametrize("mixture_prior", [False, True])
def test_scores_are_the_log_posteriors_up_to_a_constant_of_the_sample(mixture_prior, monkeypatch):
    """Written out sample by sample, from the definitions."""
    monkeypatch.setattr(balanced, "CHUNK_ENTRIES", 70)
    log_prior = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64).log()
    scores, class_mean = model(log_prior=log_prior, mixture_prior=mixture_prior)
    m, big = normalize(scores.mean, dim=1), normalize(class_mean, dim=1)
    rows = []
    for v, y in zip(normalize(scores.embedding, dim=1), scores.superclass, strict=True):
        weight = (m @ big[y] / 0.5).softmax(0) if mixture_prior else torch.ones(7)
        given_v = (m @ v / 0.1).exp() * weight
        given_z = torch.stack([((big @ one / 0.5).exp() * log_prior.exp())[y] for one in m])
        given_z = given_z / torch.stack([((big @ one / 0.5).exp() * log_prior.exp()).sum() for one in m])
        rows.append((given_v / given_v.sum()).log() + given_z.log())
    naive = torch.stack(rows)
    found = scores.chunk(0, len(scores))
    assert_close(found - found[:, :1], naive - naive[:, :1], rtol=0, atol=1e-9)
    one, other = assign(scores, None, EXACT), assign(Dense(naive), None, EXACT)
    assert_close(one.responsibilities(found), other.responsibilities(naive), rtol=0, atol=1e-6)


@given(st.lists(st.integers(1, 500), min_size=1, max_size=12), st.integers(0, 60))
@settings(max_examples=50, deadline=None)
def test_subclasses_are_shared_by_size(counts, more):
    total = len(counts) + more
    share = share_subclasses(torch.tensor(counts), total)
    assert int(share.sum()) == total
    assert int(share.min()) >= 1
    exact = torch.tensor(counts, dtype=torch.float64) * total / sum(counts)
    if bool((exact >= 1).all()):
        assert bool(((share - exact).abs() < 1).all())
    order = torch.tensor(counts).argsort(stable=True)
    assert bool((share[order].diff() >= -1).all())


def test_largest_remainders_get_what_is_left():
    assert share_subclasses(torch.tensor([500, 300, 200]), 5).tolist() == [3, 1, 1]
    assert share_subclasses(torch.tensor([1000, 1, 1]), 4).tolist() == [2, 1, 1]
    with pytest.raises(UsageError, match="2 subclasses cannot be shared by 3"):
        share_subclasses(torch.tensor([1, 1, 1]), 2)
    with pytest.raises(DataError, match="Superclass 1 has no sample"):
        share_subclasses(torch.tensor([1, 0, 1]), 3)


def test_masked_assignment_is_one_problem_for_each_superclass():
    scores, _ = model()
    share = share_subclasses(torch.bincount(scores.superclass), 7)
    found, whole = assign_within(scores, scores.superclass, share, EXACT), scores.chunk(0, 60)
    assert (owners(share)[found.labels] == scores.superclass).all()
    soft = found.responsibilities(mask_others(whole, owners(share), scores.superclass))
    assert_close(soft.mean(0), found.mass, rtol=0, atol=1e-12)
    counts = torch.bincount(scores.superclass).double()
    assert_close(found.mass, (counts / share / 60)[owners(share)], rtol=0, atol=1e-9)
    for number, columns in enumerate(torch.arange(7).split(share.tolist())):
        rows = (scores.superclass == number).nonzero()[:, 0]
        alone = assign(Dense(whole[rows][:, columns]), None, EXACT)
        assert (found.labels[rows] == alone.labels + columns[0]).all()
        assert_close(soft[rows][:, columns], alone.responsibilities(whole[rows][:, columns]), rtol=0, atol=1e-9)


def test_masked_assignment_refuses_what_does_not_fit():
    scores, _ = model()
    with pytest.raises(UsageError, match=r"have \[2, 2, 2\] subclasses, and 7 are scored"):
        assign_within(scores, scores.superclass, torch.tensor([2, 2, 2]))
    with pytest.raises(DataError, match="Superclass 3 has no sample"):
        assign_within(scores, scores.superclass, torch.tensor([2, 2, 2, 1]))
    with pytest.raises(DataError, match=r"outside 0\.\.1"):
        assign_within(scores, scores.superclass, torch.tensor([4, 3]))
    with pytest.raises(NonFinite, match="sample 4 "):
        bad = scores.embedding.clone()
        bad[4] = float("nan")
        assign(replace(scores, embedding=bad))


WORKER = """
import sys
import torch
import torch.distributed as group
from mixtura.core.balanced import Balance, Dense, assign, assign_batch
from mixtura.core.two_levels import assign_within, share_subclasses

folder, rank = sys.argv[1], int(sys.argv[2])
torch.set_num_threads(1)
group.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)

def reduce(tensor):
    total = tensor.contiguous().clone()
    group.all_reduce(total)
    return total

data = torch.load(f"{folder}/data.pt", weights_only=True)
scores, superclass = (data[name].tensor_split([45])[rank] for name in ("scores", "superclass"))
exact = Balance(tolerance=1e-9, steps=5000)
found = {
    "whole": assign(Dense(scores), None, exact, reduce),
    "free": assign(Dense(scores), None, Balance(strength=0.5, kernel_bytes=0), reduce),
    "within": assign_within(Dense(scores), superclass, data["share"], exact, reduce),
}
scores[0, 0] = float("nan") if rank else scores[0, 0]
try:
    assign(Dense(scores), None, exact, reduce)
except ValueError as error:
    message = str(error)
torch.save({k: (v.labels, v.potential) for k, v in found.items()} | {"message": message}, f"{folder}/rank{rank}.pt")
group.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_make_the_assignments_of_one(tmp_path):
    """The samples are split unevenly, and the second process has none of a superclass."""
    scores, _ = model(d=3)
    superclass = scores.superclass.clone()
    superclass[45:] = superclass[45:].clamp_min(1)
    whole, share = Dense(scores.chunk(0, 60)), share_subclasses(torch.bincount(superclass), 7)
    torch.save({"scores": whole.score, "superclass": superclass, "share": share}, tmp_path / "data.pt")
    command = [sys.executable, "-W", "ignore", "-c", WORKER, str(tmp_path)]
    running = [subprocess.Popen([*command, str(rank)], stderr=subprocess.PIPE, text=True) for rank in range(2)]
    errors = [process.communicate(timeout=120)[1] for process in running]
    assert [process.returncode for process in running] == [0, 0], errors
    one = {
        "whole": assign(whole, None, EXACT),
        "free": assign(whole, None, Balance(strength=0.5, kernel_bytes=0)),
        "within": assign_within(whole, superclass, share, EXACT),
    }
    two = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in range(2)]
    for name, found in one.items():
        assert torch.equal(torch.cat([part[name][0] for part in two]), found.labels)
        for part in two:
            assert_close(part[name][1], found.potential, rtol=0, atol=1e-9)
    assert [part["message"].split(" hold")[0] for part in two] == [
        "Scores of another process",
        "The scores of sample 0",
    ]
