"""The JSON of requests and answers about the kinds of a product."""

from typing import Annotated, Literal

from pydantic import BaseModel, FailFast, Field

from mixtura.web.schema_base import Id, Name, Number, RequestModel, ResponseModel, Share

KindName = Annotated[Name | Literal[""], Field(description="Empty for photos that are of no kind.")]


class KindItems(RequestModel):
    """Some photos of a product, by their numbers, and the name of the kind that they are."""

    name: KindName
    items: Annotated[list[Number], FailFast(), Field(min_length=1, max_length=1000)]


class GiveKinds(RequestModel):
    """Its photos are of these kinds; lists with one name are one kind."""

    kinds: Annotated[list[KindItems], FailFast(), Field(min_length=1, max_length=12)]


class KindRename(RequestModel):
    """A kind that there is, and its new name."""

    kind: Name
    name: KindName


class RenameKinds(RequestModel):
    """Kinds get other names; two with one name are one kind."""

    rename_kinds: Annotated[list[KindRename], FailFast(), Field(min_length=1, max_length=12)]


class Kind(ResponseModel):
    """A kind of a product: its photos by number, and where pictures of the most typical and of borderline ones are.

    ``stability`` says how well half of the photos find the kind again; null for a kind that the product has.
    """

    name: str
    items: list[int]
    typical: list[str]
    borderline: list[str]
    stability: Share | None


class Kinds(BaseModel):
    """The kinds of a product."""

    kinds: list[Kind]


class FoundKinds(BaseModel):
    """The kinds that the photos of a product suggest, none if it is one kind; ``why`` is a sentence.

    ``p_value`` says how often one kind would look as divided, where that was tested.
    """

    kinds: list[Kind]
    why: str
    stability: Share | None
    p_value: Share | None


class KindsEffect(ResponseModel):
    """The number of photos of each kind of a product before and after a change."""

    id: Id
    product: str
    before: dict[str, int]
    after: dict[str, int]
