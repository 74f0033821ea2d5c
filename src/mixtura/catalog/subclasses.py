"""The named subclasses of a catalog: those that were fitted stay with their components, those of edits with items."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Int
from safetensors.torch import load, save
from torch import Tensor

from mixtura import files
from mixtura.core import ownership
from mixtura.core.classes import NO_WEIGHT
from mixtura.core.moments import LabeledItems
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
    """The component that each row was learned by, -1 for a row that was not; ``None`` unless the labels say so.

    The model is one whose components are sums over their rows.
    """
    known = model.subclasses
    if known is None or features.sublabel is None:
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


@dataclass(frozen=True)
class ClassKinds:
    """The kinds that edits have given to the items of a fitted class.

    Args:
        base: the class, as it was fitted.
        names: of its kinds; an empty one is that of the items of no kind.
        items: all items that it is learned from; ``labels`` are indices into the names.
    """

    base: int
    names: tuple[str, ...]
    items: LabeledItems

    @classmethod
    def of(cls, base: int, items: LabeledItems, kinds: Sequence[str]) -> "ClassKinds":
        """The kinds of a class from the kind of each item; one whose items all have weight 0 is not learned."""
        weight: dict[str, float] = dict.fromkeys(sorted(kinds), 0.0)
        for name, own in zip(kinds, items.weight.tolist(), strict=True):
            weight[name] += own
        names = tuple(name for name, total in weight.items() if total > NO_WEIGHT)
        row = torch.tensor([n for n, name in enumerate(kinds) if name in names], dtype=torch.int64)
        labels = torch.tensor([names.index(kinds[n]) for n in row.tolist()], dtype=torch.int64)
        return cls(base, names, replace(items.select(row), labels=labels))

    @property
    def of_class(self) -> LabeledItems:
        """The items with their class as the label."""
        return replace(self.items, labels=torch.full_like(self.items.labels, self.base))


def kinds_of(base: Model, items: LabeledItems, ids: Sequence[int], given: Mapping[int, str]) -> list[str]:
    """The kind of each item of a fitted class: the one that an edit gave it, else the fitted one; empty for none.

    Args:
        base: the model as it was fitted.
        items: with the class of each.
        ids: their numbers.
        given: the kinds that edits gave, by item number.
    """
    known = base.subclasses
    if known is None:
        return [given.get(id, "") for id in ids]
    assert base.mixture.component_class is not None
    joint = base.mixture.component_log_prob(items.x.to(base.mixture.mean))
    component = ownership.mask_others(joint, base.mixture.component_class, items.labels).argmax(1)
    if items.component is not None:
        component = torch.where(items.component >= 0, items.component, component)
    parents = known.class_parent.tolist()
    names = ["" if name == base.classes[own] else name for name, own in zip(known.names, parents, strict=True)]
    fitted = known.component_subclass[component].tolist()
    return [given.get(id, names[own]) for id, own in zip(ids, fitted, strict=True)]


@dataclass(frozen=True)
class Placed:
    """The subclasses of an edited catalog, each a name and a product, and the place of each fitted one among them.

    A place is -1 for a fitted subclass whose class is gone, or has other kinds by an edit. ``fitted`` says whether the
    fit has named subclasses at all.
    """

    pairs: tuple[tuple[str, int], ...]
    place: Int[Tensor, " S"]
    known: Subclasses
    fitted: bool

    @classmethod
    def of(
        cls, base: Model, product: Int[Tensor, " C"], names: Sequence[str], kinds: Sequence[ClassKinds] = ()
    ) -> "Placed":
        """The subclasses that were fitted and are left.

        A merged product has the subclasses of all its parts, also two of one name. What has no subclasses is its own
        only one, and is renamed with its product.

        Args:
            base: the model as it was fitted.
            product: the product of each fitted class; -1 for one that is gone.
            names: of the products.
            kinds: those of the classes that edits have divided.
        """
        known = base.subclasses or _of_classes(base)
        divided = {one.base for one in kinds}
        pairs: list[tuple[str, int]] = []
        place: list[int] = []
        for name, own in zip(known.names, known.class_parent.tolist(), strict=True):
            above, whole = int(product[own]), name == base.classes[own]
            pair = (names[above] if whole else name, above)
            if above < 0 or own in divided:
                place.append(-1)
            elif whole and pair in pairs:
                place.append(pairs.index(pair))
            else:
                place.append(len(pairs))
                pairs.append(pair)
        return cls(tuple(pairs), torch.tensor(place), known, base.subclasses is not None)

    def with_others(self, others: Sequence[tuple[str, int]], order: Int[Tensor, " K"]) -> Subclasses:
        """All subclasses, with the owners of the components.

        Args:
            others: name and product of each component of a divided class, then of each newcomer.
            order: the components that were fitted and are left, then the others, as the mixture has them.
        """
        pairs = self.pairs + tuple(pair for pair in dict.fromkeys(others) if pair not in self.pairs)
        added = [pairs.index(pair) for pair in others]
        moved = self.place[self.known.component_subclass]
        owner = torch.cat([moved[moved >= 0], torch.tensor(added, dtype=torch.int64)])[order]
        return replace(
            self.known,
            names=tuple(name for name, _ in pairs),
            class_parent=torch.tensor([above for _, above in pairs]),
            component_subclass=owner,
        )


def _of_classes(base: Model) -> Subclasses:
    """Each fitted class as its own only subclass, at the temperature of the classes: no items tell a better one."""
    assert base.mixture.component_class is not None
    return Subclasses(base.classes, torch.arange(len(base.classes)), base.mixture.component_class, base.temperature)


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
