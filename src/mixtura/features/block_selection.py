"""Which layers of an encoder a model reads, and how their columns are bent and scaled: out-of-fold samples decide."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from mixtura.core import selection as choosing
from mixtura.core.classes import Plan
from mixtura.core.covariance import Prior
from mixtura.core.cross_fitting import Folds
from mixtura.core.selection import SCREEN_SHRINKAGE, Candidate
from mixtura.features.blocks import Blocks, Part
from mixtura.features.projected_folds import Steps, cross_fit_projection
from mixtura.identity import LAST, Block

SCREEN_FOLDS = 2  # folds that are held out to compare blocks, where they hold MIN_SCREEN_ROWS rows or more
MIN_SCREEN_ROWS = 300


@dataclass(frozen=True)
class Scaling:
    """How blocks are treated: the power of the last layer, that of the taps, and whether all have unit mean square."""

    last_power: float
    tap_power: float
    unit: bool

    def part(self, block: Block) -> Part:
        """The block as a part of the projection."""
        return Part(block.start, block.stop, self.last_power if block.pooling == LAST else self.tap_power, self.unit)


def choose_blocks(folds: Folds, plan: Plan, layout: Sequence[Block]) -> Steps:
    """The projection that keeps the blocks that help; no step where the columns are not divided into blocks.

    The last layer is the incumbent, as it is or as signed roots. Richer layouts are tried in turn: see
    :func:`richer_layouts`. One takes over if the log-probability of out-of-fold samples rises by more than its standard
    error and accuracy does not fall by more than its own. All are compared by a quick tied mixture.

    Args:
        folds: the samples with all columns.
        plan: as in :func:`mixtura.core.selection.choose`.
        layout: the blocks of the columns.
    """
    if not layout:
        return []
    if float(folds.held_out.sum()) < choosing.MIN_HELD_OUT:
        return [_step(layout[:1], Scaling(1.0, 1.0, unit=False))]
    return _Screen(_fewer(folds), replace(plan, family="tied", components=1), tuple(layout)).best()


@dataclass(frozen=True)
class _Screen:
    """Quick comparisons of blocks; every result is kept."""

    folds: Folds
    plan: Plan
    layout: tuple[Block, ...]
    tried: dict[tuple[tuple[Block, ...], Scaling], Candidate] = field(default_factory=dict)

    def best(self) -> Steps:
        """The blocks to keep, with their scaling."""
        last = tuple(block for block in self.layout if block.pooling == LAST)
        power = self._scaling(last, [Scaling(power, 1.0, unit=False) for power in self._powers(last)]).last_power
        blocks, scaling = last, Scaling(power, 1.0, unit=False)
        if last == self.layout:
            return [_step(last, scaling)]
        tried = [Scaling(power, 1.0, unit=False), Scaling(power, 1.0, unit=True), Scaling(power, 0.5, unit=True)]
        with_taps = self._scaling(self.layout, tried)
        for richer in richer_layouts(self.layout):
            if self._score(richer, with_taps).significantly_likelier_than(self._score(blocks, scaling)):
                blocks, scaling = richer, with_taps
        return [_step(blocks, scaling)]

    def _powers(self, last: Sequence[Block]) -> tuple[float, ...]:
        """Powers of the last layer to try: roots only where nothing is negative."""
        return (1.0, 0.5) if all(bool((self.folds.x[:, b.start : b.stop] >= 0).all()) for b in last) else (1.0,)

    def _scaling(self, blocks: tuple[Block, ...], scalings: Sequence[Scaling]) -> Scaling:
        trials = {scaling: self._score(blocks, scaling) for scaling in scalings}
        winner = choosing.most_accurate(list(trials.values()))
        return next(scaling for scaling, trial in trials.items() if trial is winner)

    def _score(self, blocks: tuple[Block, ...], scaling: Scaling) -> Candidate:
        if (blocks, scaling) not in self.tried:
            _, space = cross_fit_projection([_step(blocks, scaling)], self.folds.x, self.folds)
            quick = replace(self.plan, prior=Prior(0.0, SCREEN_SHRINKAGE))
            self.tried[blocks, scaling] = choosing.cross_validate(space, quick)
        return self.tried[blocks, scaling]


def richer_layouts(layout: Sequence[Block]) -> list[tuple[Block, ...]]:
    """Layouts to try in turn: the last layer with means of the later half of the taps, then with their deviations,
    then with all means, and with everything."""
    layers = list(dict.fromkeys(block.layer for block in layout if block.pooling != LAST))
    late = set(layers[len(layers) // 2 :]) if len(layers) > 1 else set(layers)
    found = [
        tuple(b for b in layout if b.pooling == LAST or (b.layer in kept and b.pooling in poolings))
        for kept in (late, set(layers))
        for poolings in (("mean",), ("mean", "std"))
    ]
    return list(dict.fromkeys(found))


def _step(blocks: Sequence[Block], scaling: Scaling) -> tuple[type[Blocks], dict[str, list[Part]]]:
    return Blocks, {"parts": [scaling.part(block) for block in blocks]}


def _fewer(folds: Folds) -> Folds:
    """The same samples with fewer folds to hold out, where those are enough to compare blocks."""
    folds = folds.at_once()
    held = int((folds.fold < SCREEN_FOLDS).sum())
    return replace(folds, n_folds=SCREEN_FOLDS) if folds.n_folds > SCREEN_FOLDS and held >= MIN_SCREEN_ROWS else folds
