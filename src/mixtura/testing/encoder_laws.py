"""Laws of every encoder of photos whose network can be trained.

Inherit from :class:`TrainableEncoderLaws` in a test file, say how the encoder is built, and pytest collects the laws::

    class TestMyEncoder(TrainableEncoderLaws):
        def build(self, **options):
            return MyEncoder(**options)

Without pytest, ``TestMyEncoder().run()`` runs them all.
"""

import tempfile
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Num
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.testing import assert_close

from mixtura.encoders.runtime import fixed_photos
from mixtura.encoders.stages import INPUT, WEIGHT, Stages, bare, freeze_norm, kinds_of, stages_of
from mixtura.identity import UNTRAINED, taps_of
from mixtura.interfaces import TrainableEncoder

BATCH_NORMS = (nn.modules.batchnorm._BatchNorm,)


def copies(network: nn.Module) -> dict[str, Tensor]:
    """The state of a network as it is now."""
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def changed(network: nn.Module, before: dict[str, Tensor]) -> set[str]:
    """The names of what is no longer what it was, to the bit."""
    return {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}


def step(network: nn.Module, vectors: Tensor) -> None:
    """One step of gradient descent on the scatter of the vectors and their mean."""
    (vectors.square().mean() + vectors.std(0).mean()).backward()
    torch.optim.SGD([p for p in network.parameters() if p.requires_grad], 0.1).step()


class TrainableEncoderLaws:
    """Laws of a trainable encoder; override :meth:`build`.

    ``tap`` is a setting of taps, ``None`` for an encoder without; ``n_blocks`` is the least number of blocks that it
    should have; ``drawn`` says that it takes a ``seed``.
    """

    tap: ClassVar[str | None] = "last-1"
    n_blocks: ClassVar[int] = 2
    drawn: ClassVar[bool] = True

    def build(self, **options: Any) -> TrainableEncoder:
        """An encoder that reads small photos, with further options: taps, weights, seed."""
        raise AssertionError(f"{type(self).__name__} does not say how its encoder is built")

    def run(self) -> list[str]:
        """Run every law and return their names; the first violated law raises."""
        names = [name for name in dir(self) if name.startswith("test_")]
        for name in names:
            getattr(self, name)()
        return names

    def variants(self) -> list[tuple[TrainableEncoder, nn.Module, Stages]]:
        """The encoder without taps and with them, each with a fresh network and its blocks."""
        built = [self.build(), *([] if self.tap is None else [self.build(taps=self.tap)])]
        made = [(encoder, encoder.network()) for encoder in built]
        return [(encoder, network, stages_of(encoder, network)) for encoder, network in made]

    def photos(self, encoder: TrainableEncoder) -> Num[Tensor, "N 3 H W"]:
        """Prepared photos."""
        return torch.stack([encoder.prepare(photo) for photo in fixed_photos()])

    def test_blocks_one_by_one_are_the_network(self) -> None:
        """In evaluation mode, cut anywhere or everywhere, they give what ``encode`` does."""
        for encoder, network, stages in self.variants():
            photos, n = self.photos(encoder), len(stages)
            expected = encoder.encode(photos)
            tolerance = 1e-4 * float(expected.abs().max())
            assert n >= self.n_blocks
            network.eval()
            with torch.no_grad():
                x: Any = photos
                for block in range(n):
                    if block > 0:
                        assert_close(stages.run(network, x, block), expected, rtol=0, atol=tolerance)
                    x = stages.run(network, x, block, block + 1)
                assert_close(x, expected, rtol=0, atol=tolerance)
                assert_close(stages.run(network, photos), expected, rtol=0, atol=tolerance)

    def test_activations_are_rows(self) -> None:
        """Those of some photos, in another order and number, give the vectors of these photos."""
        for encoder, network, stages in self.variants():
            network.eval()
            with torch.no_grad():
                kept = stages.run(network, self.photos(encoder), 0, len(stages) - 1)
                before = {name: tensor.clone() for name, tensor in kept.items()}
                whole = stages.run(network, kept, len(stages) - 1)
                order = torch.tensor([2, 0, 2])
                some = stages.run(network, {name: tensor[order] for name, tensor in kept.items()}, len(stages) - 1)
            assert_close(some, whole[order], rtol=0, atol=1e-4 * float(whole.abs().max()))
            assert INPUT in kept and all(torch.equal(kept[name], before[name]) for name in before)

    def test_every_parameter_is_in_one_block_and_of_one_kind(self) -> None:
        """Names are those of the state; every block has weights."""
        for _, network, stages in self.variants():
            names = [name for held in stages.parameters for name in held]
            own = dict(bare(network).named_parameters())
            assert sorted(names) == sorted(own) and set(own) <= set(network.state_dict())
            kinds = kinds_of(network)
            assert set(kinds) == set(own) and len(set(stages.names)) == len(stages)
            for _, block in stages.blocks(network):
                assert any(kinds[name] == WEIGHT for name in block)
                assert all(block[name] is own[name] for name in block)

    def test_making_blocks_changes_nothing(self) -> None:
        """Neither weights nor buffers, nor gradients, nor the modes of modules; nor does running the last ones."""
        for encoder, network, _ in self.variants():
            before, random = copies(network), torch.get_rng_state()
            stages = stages_of(encoder, network)
            assert not changed(network, before) and torch.equal(torch.get_rng_state(), random)
            assert all(module.training for module in network.modules())
            assert all(parameter.grad is None for parameter in network.parameters())
            with torch.no_grad():
                kept = stages.run(network.eval(), self.photos(encoder), 0, len(stages) - 1)
                stages.run(network.train(), kept, len(stages) - 1)
            held = set(stages.parameters[-1])
            owners = {name.rpartition(".")[0] for name in held}
            assert {name.rpartition(".")[0] for name in changed(network, before)} <= owners
            assert all(module.training for module in network.modules())

    def test_gradients_from_kept_activations_are_those_of_the_whole_pass(self) -> None:
        """For the last block, with everything below it frozen; all else stays as it was, to the bit."""
        for encoder, network, stages in self.variants():
            last, photos = len(stages) - 1, self.photos(encoder)
            stages.freeze(network, last)
            network.eval()
            network(photos).square().mean().backward()
            expected = {name: p.grad for name, p in stages.blocks(network)[last][1].items() if p.requires_grad}
            network.zero_grad()
            with torch.no_grad():
                kept = stages.run(network, photos, 0, last)
            stages.run(network, kept, last).square().mean().backward()
            for name, p in stages.blocks(network)[last][1].items():
                if p.requires_grad:
                    wanted = expected[name]
                    assert p.grad is not None and wanted is not None, name
                    assert_close(p.grad, wanted, rtol=0, atol=1e-6 + 1e-3 * float(wanted.abs().max()))

    def test_blocks_below_are_frozen(self) -> None:
        """A step in training mode on whole photos moves the last block only: no weight and no buffer below it."""
        for encoder, network, stages in self.variants():
            last, before = len(stages) - 1, copies(network)
            stages.freeze(network, last)
            step(network.train(), network(self.photos(encoder)))
            moved = changed(network, before)
            assert moved and moved & set(stages.parameters[last])
            owners = {name.rpartition(".")[0] for name in stages.parameters[last]}
            assert {name.rpartition(".")[0] for name in moved} <= owners

    def test_frozen_batch_norms_stay_as_they_are(self) -> None:
        """Their scales and buffers are equal to the bit after a step in training mode; other weights move."""
        encoder = self.build()
        network = encoder.network()
        before, handles = copies(network), freeze_norm(network)
        step(network.train(), network(self.photos(encoder)))
        norms = {name for name, module in bare(network).named_modules() if isinstance(module, BATCH_NORMS)}
        moved = changed(network, before)
        assert moved and len(handles) == len(norms)
        assert not {name for name in moved if name.rpartition(".")[0] in norms}
        assert not any(module.training for module in network.modules() if isinstance(module, BATCH_NORMS))
        for handle in handles:
            handle.remove()
        step(network.train(), network(self.photos(encoder)))
        assert not norms or {name for name in changed(network, before) if name.endswith("running_mean")}

    def test_taps_are_added_behind_the_vector(self) -> None:
        """The vector before them is that of the network without taps, of the same weights."""
        if self.tap is None:
            return
        (plain, bare_network, _), (tapped, network, _) = self.variants()
        assert taps_of(tapped.identity) != taps_of(plain.identity) and tapped.dimension > plain.dimension
        assert {n: t.shape for n, t in network.state_dict().items()} == {
            n: t.shape for n, t in bare_network.state_dict().items()
        }
        network.load_state_dict(bare_network.state_dict())
        photos = self.photos(plain)
        with torch.no_grad():
            found, expected = network.eval()(photos), bare_network.eval()(photos)
        assert_close(found[:, : plain.dimension], expected, rtol=0, atol=1e-5 * float(expected.abs().max()))

    def test_trained_weights_come_back_with_taps_and_without(self) -> None:
        """One file of the trained state serves both, and its vectors are those of the trained network."""
        encoder = self.build()
        network = encoder.network()
        step(network, network(self.photos(encoder)))
        network.eval()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "trained.safetensors"
            save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, path)
            again = self.build(weights=path)
            tapped = None if self.tap is None else self.build(weights=path, taps=self.tap)
        photos = self.photos(encoder)
        with torch.no_grad():
            expected = network(photos)
        assert UNTRAINED not in again.identity and again.fingerprint != encoder.fingerprint
        tolerance = 1e-4 * float(expected.abs().max())
        assert_close(again.encode(photos), expected, rtol=0, atol=tolerance)
        if tapped is not None:
            assert_close(tapped.encode(photos)[:, : again.dimension], expected, rtol=0, atol=tolerance)

    def test_a_seed_is_a_start(self) -> None:
        """The same one makes the same weights, another one others; the identity names it, and no generator moves."""
        if not self.drawn:
            return
        random = torch.get_rng_state()
        one, same, other = (self.build(seed=seed) for seed in (3, 3, 4))
        assert torch.equal(torch.get_rng_state(), random)
        assert one.identity[UNTRAINED] == "seed 3" and one.fingerprint == same.fingerprint
        assert one.identity["weights"] != other.identity["weights"]
        photos = self.photos(one)
        assert torch.equal(one.encode(photos), same.encode(photos))
        assert one.encode(photos).isfinite().all()
