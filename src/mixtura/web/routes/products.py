"""The products of the catalog and their photos: looked at by everybody, changed with the token."""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Path, Response

from mixtura.catalog import Catalog
from mixtura.catalog.shots import shot_of
from mixtura.errors import BadItem
from mixtura.records.catalog import EditResult, Shot
from mixtura.tasks import discover, product_kinds
from mixtura.web import kind_schemas, schemas
from mixtura.web.answers import thumbnail
from mixtura.web.problems import Refusal
from mixtura.web.service import Service, ServiceDep, product_of
from mixtura.web.uploads import decoded

ProductId = Annotated[str, Path(pattern=schemas.ID_PATTERN, examples=["red-kettle"])]
ItemId = Annotated[int, Path(ge=1, le=schemas.MAX_EXACT_INTEGER)]

router = APIRouter(tags=["catalog"])


@router.get("/v1/products", response_model=schemas.Products)
async def products(service: ServiceDep) -> dict[str, Any]:
    """All products."""
    view = await service.read(lambda: service.catalog.view())
    return {"products": view.products, "revision": view.revision}


@router.post("/v1/products", response_model=schemas.Effect, status_code=201)
async def enroll(service: ServiceDep, given: Annotated[schemas.Enrolled, Body()]) -> EditResult:
    """Make a product of some photos, or add them to the product of this name; nothing is trained again."""
    return await service.edit(lambda: _enroll(service, given))


@router.patch("/v1/products/{id}", response_model=schemas.Effect)
async def change(service: ServiceDep, id: ProductId, given: Annotated[schemas.Change, Body()]) -> EditResult:
    """Rename, confirm, merge or split a product, or give it kinds; one of them at a time."""
    return await service.edit(lambda: _changed(service.catalog, id, given))


@router.delete("/v1/products/{id}", response_model=schemas.Effect)
async def remove(service: ServiceDep, id: ProductId) -> EditResult:
    """Take a product out of the catalog; undo brings it back."""
    return await service.edit(lambda: service.catalog.remove_product(product_of(service.catalog, id)))


@router.get("/v1/products/{id}/items", response_model=schemas.Items)
async def items(service: ServiceDep, id: ProductId) -> dict[str, Any]:
    """The photos of a product."""
    found = await service.read(lambda: service.catalog.items(product_of(service.catalog, id)))
    return {"items": [vars(item) | {"thumbnail": thumbnail(item.id)} for item in found]}


@router.get("/v1/products/{id}/kinds", response_model=kind_schemas.Kinds)
async def kinds(service: ServiceDep, id: ProductId) -> dict[str, Any]:
    """The kinds of a product, the largest first; photos of no kind have the name of the product."""
    found = await service.read(lambda: product_kinds.shown(service.catalog, product_of(service.catalog, id)))
    return {"kinds": [_kind(one) for one in found]}


@router.get("/v1/products/{id}/kinds/found", response_model=kind_schemas.FoundKinds)
async def found_kinds(service: ServiceDep, id: ProductId) -> dict[str, Any]:
    """The kinds that the photos of a product suggest, which may be one; nothing is changed."""
    product = await service.read(lambda: product_of(service.catalog, id))
    found = await service.compute(
        service.kinds[product.id], lambda: product_kinds.find(service.catalog, product_of(service.catalog, id))
    )
    return vars(found) | {"kinds": [_kind(one) for one in found.kinds]}


@router.delete("/v1/items/{id}", response_model=schemas.Effect)
async def remove_item(service: ServiceDep, id: ItemId) -> EditResult:
    """Take one photo out of the catalog; undo brings it back."""
    return await service.edit(lambda: service.catalog.remove_item(id))


@router.get("/v1/items/{id}/thumbnail", response_class=Response, responses={200: {"content": {"image/jpeg": {}}}})
async def picture(service: ServiceDep, id: ItemId) -> Response:
    """A small picture of a photo."""
    return jpeg(await service.read(lambda: _picture(service.catalog, id)))


@router.get("/v1/history", response_model=schemas.History)
async def history(service: ServiceDep) -> dict[str, Any]:
    """The latest changes, newest first."""
    return {"edits": await service.read(lambda: service.catalog.history())}


@router.post("/v1/undo", response_model=schemas.Effect)
async def undo(service: ServiceDep) -> EditResult:
    """Take the last change back."""
    return await service.edit(lambda: service.catalog.undo())


def jpeg(picture: bytes | None) -> Response:
    """A picture as an answer.

    Raises:
        Refusal: 404 if there is none.
    """
    if picture is None:
        raise Refusal(404, "There is no picture of it.")
    return Response(picture, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=3600"})


def _kind(kind: product_kinds.ShownKind) -> dict[str, Any]:
    pictures = {"typical": kind.typical, "borderline": kind.borderline}
    return vars(kind) | {name: [thumbnail(item) for item in items] for name, items in pictures.items()}


def _picture(catalog: Catalog, id: int) -> bytes | None:
    return catalog.thumbnail(catalog.item(id).id)


def _enroll(service: Service, given: schemas.EnrollPhotos | schemas.EnrollDecisions) -> EditResult:
    if isinstance(given, schemas.EnrollPhotos):
        photos = enumerate(decoded(given.images), 1)
        return service.catalog.enroll(given.name, [_shot(service, photo, place) for place, photo in photos], given.kind)
    decisions = list(dict.fromkeys(given.decisions))
    return discover.enroll(service.journal, service.catalog, decisions, given.name, given.kind)


def _shot(service: Service, photo: bytes, place: int) -> Shot:
    try:
        with service.photos.decoding(photo):
            return shot_of(service.encoder, photo, f"photo {place}")
    except BadItem as error:
        raise Refusal(422, f"Nothing was added: {error}") from error


def _changed(catalog: Catalog, id: str, given: schemas.RequestModel) -> EditResult:
    product = product_of(catalog, id)
    match given:
        case schemas.Rename():
            return catalog.rename(product, given.name)
        case schemas.Confirm():
            return catalog.confirm(product)
        case schemas.Merge():
            return catalog.merge(product, product_of(catalog, given.merge_into))
        case schemas.Split():
            return catalog.split(product, given.split.items, given.split.name)
        case kind_schemas.GiveKinds():
            return catalog.give_kinds({product: {item: kind.name for kind in given.kinds for item in kind.items}})
        case kind_schemas.RenameKinds():
            return catalog.rename_kinds(product, {one.kind: one.name for one in given.rename_kinds})
    raise Refusal(422, "Give one of name, confirmed, merge_into, split, kinds and rename_kinds.")
