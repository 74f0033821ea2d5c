"""The named subclasses of a catalog: they stay with the components that they own, and those with their items."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Int
from safetensors.torch import load, save
from torch import Tensor

from mixtura import files
from mixtura.errors import BundleError
from mixtura.features.records import Features
from mixtura.files import is_there
from mixtura.model.model import Model
from mixtura.model.subclasses import Subclasses
from mixtura.names import quoted, same_name_key

SUBLABEL_FILE = "sublabels.json"
"""File of a bundle: the subclass of each item by id, where training has found it and no label says so."""

COMPONENTS_SETTING = "components"
"""Initial setting of a model whose subclasses own one component each: the component that each item was learned by."""


def with_sublabels(place: Path, features: Features) -> Features:
    """The same rows with the subclasses that training has found, if a bundle has these and the labels have none.

    Raises:
        BundleError: the file is damaged.
    """
    path = files.current(place / SUBLABEL_FILE)
    if features.sublabel is not None or not is_there(path):
        return features
    try:
        known = {str(id): str(name) for id, name in json.loads(path.read_bytes()).items()}
    except (ValueError, AttributeError) as error:
        raise BundleError(f"{path} is damaged. Restore it, or train again.") from error
    return replace(
        features, sublabel=[known.get(id, own or "") for id, own in zip(features.id, features.label, strict=True)]
    )


def learned_by(model: Model, features: Features) -> Int[Tensor, " N"] | None:
    """The component that each row was learned by, -1 for a row that was not; ``None`` unless the labels say so."""
    known = model.subclasses
    if known is None or features.sublabel is None or not model.facts.get("from_sums"):
        return None
    if not torch.equal(known.component_subclass, torch.arange(len(known.names))):
        return None  # several components of a subclass share its items
    pairs = zip(known.class_parent.tolist(), known.names, strict=True)
    place = {pair: component for component, pair in enumerate(pairs)}
    rows = zip(features.label_index(model.classes).tolist(), features.sublabel, strict=True)
    return torch.tensor([place.get(row, -1) for row in rows], dtype=torch.int64)


def components_to_value(first: int, components: Int[Tensor, " N"]) -> bytes:
    """The components that items were learned by, in the order of their numbers from ``first`` on, as it is stored."""
    return save({"first": torch.tensor(first), "component": components.to(torch.int32)})


def components_of(value: bytes, base: Model, ids: Sequence[int], labels: Int[Tensor, " N"]) -> Int[Tensor, " N"]:
    """The component that each item was learned by; -1 for later items, and for those that are now of another class.

    Args:
        value: as it is stored.
        base: the model as it was fitted.
        ids: numbers of the items.
        labels: their classes.
    """
    known, owner = load(value), base.mixture.component_class
    assert owner is not None
    place = torch.tensor(ids, dtype=torch.int64) - known["first"]
    there = (place >= 0) & (place < len(known["component"]))
    component = torch.full_like(place, -1)
    component[there] = known["component"][place[there]].long()
    return torch.where((component >= 0) & (owner[component.clamp_min(0)] == labels), component, -1)


def edited(
    base: Model, product: Int[Tensor, " C"], names: Sequence[str], newcomers: Sequence[int], order: Int[Tensor, " K"]
) -> Subclasses | None:
    """The subclasses of an edited catalog; ``None`` where the fit has no named ones.

    Those of a class that is gone are left out; :func:`places` says where the others are. A merged product has the
    subclasses of all its parts. What has no subclasses, as every newcomer, is its own only one, and is renamed with its
    product.

    Args:
        base: the model as it was fitted.
        product: the product of each fitted class; -1 for one that is gone.
        names: of the products.
        newcomers: the product of each component that was added.
        order: the components of the fitted classes that are left, then those of newcomers, as the mixture has them.
    """
    known = base.subclasses
    if known is None:
        return None
    parent = product[known.class_parent]
    pairs = [
        (names[above] if name == base.classes[own] else name, above)
        for name, own, above in zip(known.names, known.class_parent.tolist(), parent.tolist(), strict=True)
        if above >= 0
    ]
    added = [pair for pair in dict.fromkeys((names[one], one) for one in newcomers) if pair not in pairs]
    pairs += added
    moved = places(base, product)[known.component_subclass]
    left = moved[moved >= 0]
    new = torch.tensor([pairs.index((names[one], one)) for one in newcomers], dtype=left.dtype)
    return replace(
        known,
        names=tuple(name for name, _ in pairs),
        class_parent=torch.tensor([above for _, above in pairs]),
        component_subclass=torch.cat([left, new])[order],
    )


def places(base: Model, product: Int[Tensor, " C"]) -> Int[Tensor, " S"]:
    """The place of each fitted subclass among those of an edited catalog; -1 for one whose class is gone.

    Args:
        base: the model as it was fitted; its classes have named subclasses.
        product: the product of each fitted class; -1 for one that is gone.
    """
    assert base.subclasses is not None
    there = product[base.subclasses.class_parent] >= 0
    return torch.where(there, there.cumsum(0) - 1, -1)


def said_of_kind(model: Model, name: str) -> str:
    """What to say of a name that is no product but a kind of one; empty if it is neither."""
    above = " and ".join(owners_of(model, name))
    return f"{quoted(name)} is no product of its own but a kind of {above}. Give {above} instead." if above else ""


def owners_of(model: Model, name: str) -> list[str]:
    """The classes that have a subclass of this name, in any spelling; not one that only has the name itself."""
    if model.subclasses is None:
        return []
    key = same_name_key(name)
    pairs = zip(model.subclasses.names, model.subclasses.class_parent.tolist(), strict=True)
    owners = dict.fromkeys(model.classes[above] for own, above in pairs if same_name_key(own) == key)
    return [owner for owner in owners if same_name_key(owner) != key]
