"""The products of the catalog and their photos: looked at by everybody, changed with the token."""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Path, Response

from mixtura.catalog import Catalog
from mixtura.catalog.shots import shot_of
from mixtura.errors import BadItem
from mixtura.records.catalog import EditResult, Shot
from mixtura.tasks import discover
from mixtura.web import schemas
from mixtura.web.answers import thumbnail
from mixtura.web.problems import Refusal
from mixtura.web.routes.photos import decoded
from mixtura.web.service import Here, Service, product_of

ProductId = Annotated[str, Path(pattern=schemas.ID, examples=["red-kettle"])]
ItemId = Annotated[int, Path(ge=1, le=schemas.LARGEST)]

router = APIRouter(tags=["catalog"])


@router.get("/v1/products", response_model=schemas.Products)
async def products(here: Here) -> dict[str, Any]:
    """All products."""
    return await here.read(lambda: {"products": here.catalog.products(), "revision": here.catalog.revision})


@router.post("/v1/products", response_model=schemas.Effect, status_code=201)
async def enroll(here: Here, given: Annotated[schemas.Enrolled, Body()]) -> EditResult:
    """Make a product of some photos, or add them to the product of this name; nothing is trained again."""
    return await here.edit(lambda: _enroll(here, given))


@router.patch("/v1/products/{id}", response_model=schemas.Effect)
async def change(here: Here, id: ProductId, given: Annotated[schemas.Change, Body()]) -> EditResult:
    """Rename, confirm, merge or split a product; one of them at a time."""
    return await here.edit(lambda: _changed(here.catalog, id, given))


@router.delete("/v1/products/{id}", response_model=schemas.Effect)
async def remove(here: Here, id: ProductId) -> EditResult:
    """Take a product out of the catalog; undo brings it back."""
    return await here.edit(lambda: here.catalog.remove_product(product_of(here.catalog, id).id))


@router.get("/v1/products/{id}/items", response_model=schemas.Items)
async def items(here: Here, id: ProductId) -> dict[str, Any]:
    """The photos of a product."""
    found = await here.read(lambda: here.catalog.items(product_of(here.catalog, id).id))
    return {"items": [vars(item) | {"thumbnail": thumbnail(item.id)} for item in found]}


@router.delete("/v1/items/{id}", response_model=schemas.Effect)
async def remove_item(here: Here, id: ItemId) -> EditResult:
    """Take one photo out of the catalog; undo brings it back."""
    return await here.edit(lambda: here.catalog.remove_item(id))


@router.get("/v1/items/{id}/thumbnail", response_class=Response, responses={200: {"content": {"image/jpeg": {}}}})
async def picture(here: Here, id: ItemId) -> Response:
    """A small picture of a photo."""
    return jpeg(await here.read(lambda: _picture(here.catalog, id)))


@router.get("/v1/history", response_model=schemas.History)
async def history(here: Here) -> dict[str, Any]:
    """The latest changes, newest first."""
    return {"edits": await here.read(here.catalog.history)}


@router.post("/v1/undo", response_model=schemas.Effect)
async def undo(here: Here) -> EditResult:
    """Take the last change back."""
    return await here.edit(here.catalog.undo)


def jpeg(picture: bytes | None) -> Response:
    """A picture as an answer.

    Raises:
        Refusal: 404 if there is none.
    """
    if picture is None:
        raise Refusal(404, "There is no picture of it.")
    return Response(picture, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=3600"})


def _picture(catalog: Catalog, id: int) -> bytes | None:
    return catalog.thumbnail(catalog.item(id).id)


def _enroll(here: Service, given: schemas.EnrollPhotos | schemas.EnrollDecisions) -> EditResult:
    if isinstance(given, schemas.EnrollPhotos):
        photos = enumerate(decoded(given.images), 1)
        return here.catalog.enroll(given.name, [_shot(here, photo, place) for place, photo in photos])
    return discover.enroll(here.journal, here.catalog, list(dict.fromkeys(given.decisions)), given.name)


def _shot(here: Service, photo: bytes, place: int) -> Shot:
    try:
        with here.photos.decoding(photo):
            return shot_of(here.encoder, photo, f"photo {place}")
    except BadItem as error:
        raise Refusal(422, f"Nothing was added. photo {place}, {error}") from error


def _changed(catalog: Catalog, id: str, given: schemas.Given) -> EditResult:
    product = product_of(catalog, id)
    match given:
        case schemas.Rename():
            return catalog.rename(product.id, given.name)
        case schemas.Confirm():
            return catalog.confirm(product.id)
        case schemas.Merge():
            return catalog.merge(product.id, product_of(catalog, given.merge_into).id)
        case schemas.Split():
            return catalog.split(product.id, given.split.items, given.split.name)
    raise Refusal(422, "Give one of name, confirmed, merge_into and split.")
