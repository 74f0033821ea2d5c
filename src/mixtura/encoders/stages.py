"""The blocks of a network that is trained, from its input to its output, and what each of its parameters is.

A trainer needs them for three things: a learning rate that falls from block to block, training of the last blocks
only, and activations below the first trained block that are computed once and kept. No network is rewritten for it:
a block begins where the forward pass calls a certain module, so the pass can be stopped there, and gone on with from
kept activations. Whether the blocks, run one after another, are the network is not assumed but measured.

A pass from kept activations goes in with one photo and comes out with the rows that were kept; so the modules around
whole networks promise as many rows (M) as come out, and not as many as went in.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Num
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from mixtura.encoders.common import OwnNames
from mixtura.encoders.runtime import fixed_photos
from mixtura.encoders.taps import pooled_so_far
from mixtura.errors import UsageError
from mixtura.interfaces import TrainableEncoder

Activations = dict[str, Tensor]
"""What a network has computed when it enters a block: tensors with one row a photo, to be kept, picked and joined."""

INPUT, STEM = "input", "stem"
NORM, BIAS, WEIGHT = "norm", "bias", "weight"
TOLERANCE = 1e-4  # of the largest number of a vector; batches of other sizes round otherwise


@dataclass(frozen=True)
class Stages:
    """The blocks of a network in the order in which a photo passes them; a value that holds no tensor.

    It serves every copy of the network (an average of its weights, say), and photos of the size it was made for.

    Args:
        names: of the blocks; ``stem`` is what comes before the first stage, and the last block goes to the vector.
        parameters: the names of each block's parameters, as in the ``state_dict``; each name is in one block.
        entries: the modules at whose call the second block begins, the third, and so on.
        photo: shape of a prepared photo (3, height, width).
    """

    names: tuple[str, ...]
    parameters: tuple[tuple[str, ...], ...]
    entries: tuple[str, ...]
    photo: tuple[int, ...]

    def __len__(self) -> int:
        """The number of blocks."""
        return len(self.names)

    def blocks(self, network: nn.Module) -> list[tuple[str, dict[str, nn.Parameter]]]:
        """The name of each block and its parameters by name, from input to output, to be given to an optimizer."""
        own = dict(bare(network).named_parameters())
        return [(name, {one: own[one] for one in held}) for name, held in zip(self.names, self.parameters, strict=True)]

    def run(
        self, network: nn.Module, x: Num[Tensor, "N 3 H W"] | Activations, first: int = 0, last: int | None = None
    ) -> Any:
        """What the blocks ``first`` up to but not including ``last`` give.

        It is the matrix of vectors (N x D) where ``last`` is the number of blocks or left out, else the activations to
        go on with from block ``last``. Blocks below ``first`` pass one black photo, in evaluation mode, so that the
        network finds the shapes it expects: they cost as much as one photo more, and nothing in them changes.

        Args:
            network: of these blocks, or a copy of it.
            x: prepared photos for ``first`` 0, else the activations with which block ``first`` begins.
            first: number of the first block to run.
            last: number of the block to stop at.

        Raises:
            UsageError: there are no such blocks, or ``x`` is not what block ``first`` begins with.
        """
        last = len(self) if last is None else last
        if not 0 <= first < last <= len(self) or isinstance(x, Tensor) != (first == 0):
            raise UsageError(
                f"Blocks {first} to {last} of {len(self)} cannot be run on {type(x).__name__}. Give photos to the "
                "first block, and to another one the activations with which it begins."
            )
        hooks: list[RemovableHandle] = []
        try:
            if last < len(self):
                hooks.append(self._entry(network, last).register_forward_pre_hook(_stop))
            if isinstance(x, Tensor):
                return network(x)
            with _evaluating(network) as back:
                hooks.append(self._entry(network, first).register_forward_pre_hook(_Start(x, back)))
                return network(x[INPUT].new_zeros(1, *self.photo, dtype=torch.float32))
        except _Reached as reached:
            return reached.activations
        finally:
            for hook in hooks:
                hook.remove()

    def freeze(self, network: nn.Module, first: int) -> None:
        """Take the blocks below ``first`` out of training: no gradient, and their batch norms stay as they are."""
        inner = bare(network)
        for name in (name for held in self.parameters[:first] for name in held):
            inner.get_parameter(name).requires_grad_(False)
            freeze_norm(inner.get_submodule(name.rpartition(".")[0]), inside=False)

    def _entry(self, network: nn.Module, block: int) -> nn.Module:
        return bare(network).get_submodule(self.entries[block - 1])


def stages_of(encoder: TrainableEncoder, network: nn.Module) -> Stages:
    """The blocks of a fresh network of an encoder, to be made once, before training.

    A parameter belongs to the block through which its gradient comes, in one pass over fixed photos; one that no
    vector depends on belongs to the first block. Where the blocks one by one do not give the network's vectors, as
    with connections that jump over several of them, the network is one block.

    Args:
        encoder: says where blocks begin.
        network: what :meth:`~mixtura.interfaces.TrainableEncoder.network` has given; it stays as it is.
    """
    device = next((p.device for p in network.parameters()), torch.device("cpu"))
    photos = torch.stack([encoder.prepare(photo) for photo in fixed_photos()[:2]]).to(device)
    shape = tuple(photos.shape[1:])
    whole = Stages((encoder.name,), (tuple(dict(bare(network).named_parameters())),), (), shape)
    with _evaluating(network):
        found = _traced(network, encoder.stages, photos)
        if found is None:
            return whole
        names, parameters = _merged(*found, kinds_of(network))
        cut = Stages(names, parameters, names[1:], shape)
        return cut if _is_network(cut, network, photos) else whole


def bare(network: nn.Module) -> nn.Module:
    """The network inside its scaling and its taps: the one whose names the ``state_dict`` has."""
    while isinstance(network, OwnNames):
        network = network.network
    return network


def kinds_of(network: nn.Module) -> dict[str, str]:
    """What each parameter is, by its name in the ``state_dict``: ``norm``, ``bias`` or ``weight``.

    ``norm`` is a scale or an offset of a normalization; ``bias`` any other vector, and what no weight decay should
    reach: tokens, tables of positions, and what a network of timm lists as such. All else is ``weight``.
    """
    inner, found = bare(network), dict[str, str]()
    listed = getattr(inner, "no_weight_decay", set)()
    for place, module in inner.named_modules():
        for own, parameter in module.named_parameters(prefix=place, recurse=False):
            plain = parameter.dim() <= 1
            token = parameter.dim() == 3 and len(parameter) == 1
            if plain and "norm" in type(module).__name__.lower():
                found[own] = NORM
            else:
                spared = plain or token or own in listed or isinstance(module, nn.Embedding)
                found[own] = BIAS if spared else WEIGHT
    return found


def freeze_norm(module: nn.Module, inside: bool = True) -> list[RemovableHandle]:
    """Freeze batch norms: no gradient, and evaluation mode whatever ``train()`` says, so their buffers stay equal.

    Args:
        module: any network.
        inside: whether the batch norms within it are meant too.

    Returns:
        Handles; ``remove()`` of each lets ``train()`` rule again. Gradients are asked for by ``requires_grad_``.
    """
    norms = [one for one in (module.modules() if inside else [module]) if isinstance(one, _BATCH_NORMS)]
    for norm in norms:
        norm.requires_grad_(False).eval()
    return [norm.register_forward_pre_hook(_stay) for norm in norms]


_BATCH_NORMS = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm)


def _stay(module: nn.Module, inputs: Any) -> None:
    module.training = False


class _Reached(Exception):
    """The pass has come to the block where it was to stop."""

    def __init__(self, activations: Activations) -> None:
        super().__init__()
        self.activations = activations


def _stop(module: nn.Module, inputs: tuple[Any, ...]) -> None:
    raise _Reached({INPUT: inputs[0], **_packed(pooled_so_far())})


class _Start:
    """A hook that lets a block begin with kept activations in place of what the blocks below have made."""

    def __init__(self, activations: Activations, back: dict[nn.Module, bool]) -> None:
        self.activations, self.back = activations, back

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        _restore(self.back)
        pooled_so_far().update(_unpacked(self.activations))
        return (self.activations[INPUT].clone(), *inputs[1:])  # a block may change it in place


def _packed(pooled: Mapping[str, tuple[Tensor, Tensor]]) -> Activations:
    return {f"{layer} {place}": part for layer, parts in pooled.items() for place, part in enumerate(parts)}


def _unpacked(activations: Activations) -> dict[str, tuple[Tensor, Tensor]]:
    layers = {name.rpartition(" ")[0] for name in activations if name != INPUT}
    return {layer: (activations[f"{layer} 0"], activations[f"{layer} 1"]) for layer in layers}


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[dict[nn.Module, bool]]:
    """The network in evaluation mode; gives the modes to which each module goes back."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield modes
    finally:
        _restore(modes)


def _restore(modes: Mapping[nn.Module, bool]) -> None:
    for module, mode in modes.items():
        module.training = mode


_Parts = tuple[list[str], list[list[str]]]


def _traced(network: nn.Module, starts: Sequence[str], photos: Tensor) -> _Parts | None:
    """The candidates for blocks and the parameters of each; ``None`` if the pass does not call them one by one."""
    inner, ends = bare(network), list[tuple[str, Any]]()

    def cut(name: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
            ends.append((name, inputs[0] if inputs else None))
            passed = isinstance(ends[-1][1], Tensor) and ends[-1][1].requires_grad
            # A copy, since a block may begin with an operation in place.
            return (inputs[0].detach().requires_grad_().clone(), *inputs[1:]) if passed else None

        return hook

    hooks = [inner.get_submodule(name).register_forward_pre_hook(cut(name)) for name in starts]
    try:
        with torch.enable_grad():
            ends.append(("", network(photos)))
    finally:
        for hook in hooks:
            hook.remove()
    whole = [name for name, x in ends if isinstance(x, Tensor) and len(x) == len(photos)] == [*starts, ""]
    return ([STEM, *starts], _owners(inner, [x for _, x in ends])) if whole else None


def _owners(network: nn.Module, ends: Sequence[Float[Tensor, "N ..."]]) -> list[list[str]]:
    """The names of the parameters that each end depends on and no earlier one does."""
    left = {name: p for name, p in network.named_parameters() if p.requires_grad}
    found: list[list[str]] = []
    for end in ends:
        gradients: Sequence[Any] = [None] * len(left)
        if left and end.requires_grad:
            gradients = torch.autograd.grad(end.sum(), list(left.values()), allow_unused=True, retain_graph=True)
        found.append([name for name, gradient in zip(left, gradients, strict=True) if gradient is not None])
        left = {name: p for name, p in left.items() if name not in found[-1]}
    taken = {name for names in found for name in names}
    found[0] = [name for name, _ in network.named_parameters() if name in found[0] or name not in taken]
    return found


def _merged(
    names: list[str], parameters: list[list[str]], kinds: Mapping[str, str]
) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """The same, with every block that has no weights joined to the one before, or at the beginning to the next."""
    kept: list[tuple[str, list[str]]] = []
    early: list[str] = []
    for name, held in zip(names, parameters, strict=True):
        if any(kinds[one] == WEIGHT for one in held):
            kept.append((name, [*early, *held]))
            early = []
        elif kept:
            kept[-1][1].extend(held)
        else:
            early += held
    kept = kept or [(names[0], early)]
    return tuple(name for name, _ in kept), tuple(tuple(held) for _, held in kept)


@torch.no_grad()
def _is_network(stages: Stages, network: nn.Module, photos: Tensor) -> bool:
    """Whether the blocks, each run by itself, give the vectors of the network."""
    whole, x = network(photos), photos
    for block in range(len(stages)):
        x = stages.run(network, x, block, block + 1)
    return isinstance(x, Tensor) and bool((x - whole).abs().max() <= TOLERANCE * whole.abs().max())
