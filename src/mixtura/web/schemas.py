"""The JSON of requests and answers."""

from typing import Annotated, Literal

from pydantic import BaseModel, FailFast, Field, Tag

from mixtura.web.kind_schemas import GiveKinds, KindName, KindsEffect, RenameKinds
from mixtura.web.schema_base import (
    ID_PATTERN,
    MAX_EXACT_INTEGER,
    NAME_PATTERN,
    PATTERN_HINTS,
    Id,
    Images,
    Name,
    Number,
    RequestModel,
    ResponseModel,
    Share,
    by_key,
)

__all__ = ["ID_PATTERN", "MAX_EXACT_INTEGER", "NAME_PATTERN", "PATTERN_HINTS"]


class Photos(RequestModel):
    """Several photos."""

    images: Images


class EnrollPhotos(RequestModel):
    """A new product by its photos, or more photos of one that has this name."""

    name: Name
    images: Images
    kind: KindName = ""


class EnrollDecisions(RequestModel):
    """The same by photos that were asked about before, without sending them again."""

    name: Name
    decisions: Annotated[list[Id], FailFast(), Field(min_length=1, max_length=500)]
    kind: KindName = ""


Enrolled = Annotated[
    Annotated[EnrollPhotos, Tag("images")] | Annotated[EnrollDecisions, Tag("decisions")],
    by_key("images", "decisions"),
]


class Rename(RequestModel):
    """Another name for the same product."""

    name: Name


class Confirm(RequestModel):
    """The product is no longer provisional."""

    confirmed: Literal[True]


class Merge(RequestModel):
    """All its photos belong to another product, whose id this is."""

    merge_into: Id


class Part(RequestModel):
    """Some photos of a product, by their numbers, and the name of the product that they make."""

    items: Annotated[list[Number], FailFast(), Field(min_length=1, max_length=2000)]
    name: Name


class Split(RequestModel):
    """Some of its photos are a product of their own."""

    split: Part


Change = Annotated[
    Annotated[Rename, Tag("name")]
    | Annotated[Confirm, Tag("confirmed")]
    | Annotated[Merge, Tag("merge_into")]
    | Annotated[Split, Tag("split")]
    | Annotated[GiveKinds, Tag("kinds")]
    | Annotated[RenameKinds, Tag("rename_kinds")],
    by_key("name", "confirmed", "merge_into", "split", "kinds", "rename_kinds"),
]


class Feedback(RequestModel):
    """What a photo showed: the id of a product, or null for none of the catalog."""

    decision: Id
    product: Id | None


class Problem(BaseModel):
    """Why there is no answer (RFC 9457)."""

    type: Literal["about:blank"]
    title: str
    status: Annotated[int, Field(ge=400, le=599)]
    detail: str
    instance: str
    request_id: str


class Neighbor(ResponseModel):
    """An item of the catalog that is like the photo; ``similarity`` is a cosine in [-1, 1]."""

    id: str
    label: str
    source: str
    similarity: float
    thumbnail: str


class Candidate(ResponseModel):
    """A product that it may be, with its probability, given that the photo shows one of the catalog."""

    id: str | None
    label: str
    probability: Share


class Decision(ResponseModel):
    """What the catalog says of one photo; ``decision_id`` names it for feedback and for enrolling it later."""

    decision_id: Id
    id: str
    label: str
    probability: Share
    typicality: Share
    verdict: Literal["match", "unsure", "unknown"]
    reason: str | None
    sentence: str
    subclass: int | str | None
    subclass_probability: Share | None
    subclass_typicality: Share | None
    subclass_typicality_of: Literal["subclass", "class"] | None
    candidates: list[Candidate]
    neighbors: list[Neighbor]
    threshold: Share
    advice: str | None
    model: str


class Fault(BaseModel):
    """Why a photo could not be read; ``reason`` is a code."""

    reason: str
    message: str


class Unreadable(BaseModel):
    """Stands in the place of a photo that could not be read; ``id`` is its place in the request, from 0."""

    id: str
    error: Fault


class Model(BaseModel):
    """What answers: ``model`` names it exactly, and changes with every edit of the catalog."""

    model: str
    revision: int
    title: str
    encoder: str
    dimension: int
    classes: int
    family: str
    false_reject_rate: Share
    prior: Literal["data", "uniform", "file"]
    min_probability: Share
    keep_photos: bool
    version: str


class Decisions(BaseModel):
    """One decision a photo, in their order."""

    model: Model
    decisions: list[Decision | Unreadable]


class Results(BaseModel):
    """The most similar items of each photo, nearest first."""

    results: list[list[Neighbor] | Unreadable]


class Product(ResponseModel):
    """A product of the catalog."""

    id: Id
    name: str
    items: int
    status: Literal["fitted", "provisional", "confirmed"]
    created: str


class Products(BaseModel):
    """All products, and the number of the last edit."""

    products: list[Product]
    revision: int


class Item(ResponseModel):
    """A photo that the catalog knows."""

    id: int
    product: Id
    source: str
    sha256: str
    added: str
    split: str
    thumbnail: str


class Items(BaseModel):
    """The photos of a product."""

    items: list[Item]


class Edit(ResponseModel):
    """One change of the catalog."""

    number: int
    at: str
    kind: str
    summary: str
    undone: bool


class History(BaseModel):
    """The latest changes, newest first."""

    edits: list[Edit]


class Effect(ResponseModel):
    """What a change did; ``before`` and ``after`` are shares of the ``tested`` photos that were named right."""

    edit: Edit
    product: Product | None
    before: Share | None
    after: Share | None
    tested: int
    notes: list[str]
    kinds: list[KindsEffect]


class Measured(ResponseModel):
    """A share with its 95% interval; null where there was nothing to count."""

    value: Share | None
    low: Share | None
    high: Share | None
    count: int


class Day(ResponseModel):
    """The photos of one day (UTC)."""

    date: str
    count: int
    bad: int
    unknown: Measured
    unsure: Measured
    typicality: Share | None
    mix: dict[str, int]


class Alarm(ResponseModel):
    """A test of the latest photos against those before; raised where ``p`` is below ``limit``."""

    kind: str
    statistic: float | None
    p: float | None
    limit: float
    raised: bool
    sentence: str
    product: str | None


class Mixed(ResponseModel):
    """How often a product is asked about, as shares, beside its share of the catalog."""

    product: str
    now: Share | None
    before: Share | None
    catalog: Share | None


class Drift(ResponseModel):
    """Whether photos still look as they did when the catalog was calibrated."""

    period: int
    days: list[Day]
    count: int
    window: int
    before: int
    stated_false_reject: Share
    false_alarms: Share
    alarms: list[Alarm]
    mix: list[Mixed]
    left_out: int


class Group(ResponseModel):
    """Photos judged unknown that look alike; ``ids`` are decisions, ``pictures`` where their photos are, if kept."""

    id: str
    ids: list[Id]
    size: int
    nearest: str
    tightness: float
    usual: float | None
    first: str
    last: str
    pictures: list[str]


class Unknowns(BaseModel):
    """Groups of likely new products, the largest first, and how many photos are unsettled in all."""

    groups: list[Group]
    unsettled: int


class Health(BaseModel):
    """Whether the server answers."""

    status: Literal["ok"]
