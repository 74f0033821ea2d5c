"""Blocks of columns: what is kept, bent and scaled, and how out-of-fold samples choose."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mixtura.core.classes import Plan
from mixtura.core.cross_fitting import Folds, content_folds
from mixtura.errors import UsageError, WrongDimension
from mixtura.features.block_selection import choose_blocks, richer_layouts
from mixtura.features.blocks import Blocks, Part, described
from mixtura.features.projection import Chain
from mixtura.identity import blocks_of

LAYOUT = blocks_of({"taps": "last 6, a mean 2, a std 2, b mean 3, b std 3"})


def rows(n=40, width=16, seed=0):
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 15), st.integers(1, 16), st.sampled_from((0.3, 0.5, 1.0)), st.booleans()))
    .map(lambda parts: [part for part in parts if part[0] < part[1]])
    .filter(bool)
)
def test_blocks_equal_the_formula_written_out(parts):
    x = rows()
    expected = []
    for start, stop, power, unit in parts:
        block = torch.sign(x[:, start:stop]) * x[:, start:stop].abs() ** power
        expected.append(block / block.square().mean().sqrt() if unit else block)
    torch.testing.assert_close(Blocks.fit(x, parts=parts)(x), torch.cat(expected, 1), rtol=1e-5, atol=1e-6)


def test_by_default_all_columns_have_unit_mean_square():
    x = 7 * rows()
    assert float(Blocks.fit(x)(x).square().mean()) == pytest.approx(1, abs=1e-5)


def test_the_scale_is_that_of_the_rows_it_was_fitted_on():
    x = rows()
    step = Blocks.fit(x)
    torch.testing.assert_close(step(2 * x), 2 * step(x))


def test_zeros_stay_zeros():
    zero = torch.zeros(5, 3)
    for power in (0.5, 1.0):
        assert torch.equal(Blocks.fit(zero, parts=[Part(0, 3, power, True)])(zero), zero)


def test_blocks_survive_their_configuration():
    x = rows()
    chain = Chain.fit(x, steps=[(Blocks, {"parts": [Part(0, 3, 0.5, True), Part(5, 16)]})])
    assert torch.equal(Chain.from_state(chain.config(), chain.state())(x), chain(x))


@pytest.mark.parametrize("part", [(0, 17, 1.0, False), (3, 3, 1.0, False), (-1, 2, 1.0, False), (0, 2, 0.0, False)])
def test_blocks_outside_the_features_are_refused(part):
    with pytest.raises(UsageError, match="do not fit features of 16 columns"):
        Blocks.fit(rows(), parts=[part])


def test_other_widths_are_refused():
    with pytest.raises(WrongDimension):
        Blocks.fit(rows())(rows(width=15))


def test_layers_are_described_in_words():
    step = Blocks.fit(rows(), parts=[Part(0, 6, 0.5), Part(6, 8, 1.0, True), Part(1, 3)])
    assert described(step, LAYOUT) == ["last, square roots", "a mean, unit mean square", "columns 1 to 2"]


def test_layouts_grow_from_the_late_means_to_everything():
    names = [[f"{block.layer} {block.pooling}" for block in layout] for layout in richer_layouts(LAYOUT)]
    assert names == [
        ["last last", "b mean"],
        ["last last", "b mean", "b std"],
        ["last last", "a mean", "b mean"],
        ["last last", "a mean", "a std", "b mean", "b std"],
    ]


def folds_with(signal, seed=0, n=400, classes=8):
    """Rows whose ``signal`` columns tell the classes apart; the last layer does so a little."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % classes
    x = torch.randn(n, 16, generator=generator)
    x[:, :6] += 0.6 * torch.randn(classes, 6, generator=generator)[labels]
    x[:, signal] += 1.5 * torch.randn(classes, 16, generator=generator)[labels][:, signal]
    return Folds(x, labels, classes, content_folds(x, labels, 5, 0), 5)


def kept_columns(folds):
    ((_, options),) = choose_blocks(folds, Plan("auto"), LAYOUT)
    return sorted(d for part in options["parts"] for d in range(part.start, part.stop))


@pytest.mark.parametrize("seed", range(3))
def test_a_tap_that_tells_classes_apart_is_kept(seed):
    assert set(range(10, 13)) <= set(kept_columns(folds_with(slice(10, 13), seed)))


@pytest.mark.parametrize("seed", range(3))
def test_deviations_are_kept_where_they_help(seed):
    assert set(range(13, 16)) <= set(kept_columns(folds_with(slice(13, 16), seed)))


def test_taps_of_noise_are_left_out_more_often_than_not():
    """A gain above one standard error happens by chance in about one of six comparisons."""
    kept = [kept_columns(folds_with(slice(0, 0), seed)) for seed in range(20)]
    assert sum(columns == list(range(6)) for columns in kept) >= 14


def test_without_blocks_there_is_no_step():
    assert choose_blocks(folds_with(slice(0, 0)), Plan("auto"), ()) == []


def test_roots_are_tried_only_where_nothing_is_negative():
    folds = folds_with(slice(0, 0))
    ((_, options),) = choose_blocks(folds, Plan("auto"), LAYOUT)
    assert options["parts"][0].power == 1.0
