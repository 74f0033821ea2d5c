"""What was asked: feedback on it, drift over the days, and photos that may be new products."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Response

from mixtura.tasks import discover
from mixtura.tasks import drift as drift_task
from mixtura.web import schemas
from mixtura.web.answers import plain
from mixtura.web.routes.products import jpeg
from mixtura.web.service import Here, Service, product_of

DecisionId = Annotated[str, Path(pattern=schemas.ID)]

router = APIRouter(tags=["journal"])


@router.post("/v1/feedback", status_code=204)
async def feedback(here: Here, given: schemas.Feedback) -> None:
    """Say what a photo that was asked about did show."""
    await here.edit(lambda: _tell(here, given))


@router.get("/v1/drift", response_model=schemas.Drift)
async def drift(here: Here) -> dict[str, Any]:
    """Whether photos still look as they did when the catalog was calibrated."""
    return plain(await here.think(here.drift, lambda: drift_task.run(here.journal, here.catalog)))


@router.get("/v1/unknowns", response_model=schemas.Unknowns)
async def unknowns(here: Here) -> dict[str, Any]:
    """Photos judged unknown that nobody has settled, in groups that look alike."""
    return await here.think(here.groups, lambda: _groups(here))


@router.get("/v1/decisions/{id}/picture", response_class=Response, responses={200: {"content": {"image/jpeg": {}}}})
async def asked(here: Here, id: DecisionId) -> Response:
    """The small picture of a photo that was asked about, where photos are kept."""
    return jpeg(await here.read(lambda: here.journal.picture(id)))


def _tell(here: Service, given: schemas.Feedback) -> None:
    product = None if given.product is None else product_of(here.catalog, given.product).id
    here.journal.feedback(given.decision, product)


def _groups(here: Service) -> dict[str, Any]:
    noted = here.journal.unknowns()
    kept = {note.id for note in noted if note.photo}
    groups = [
        plain(group) | {"pictures": [f"/v1/decisions/{id}/picture" for id in group.ids if id in kept]}
        for group in discover.run(here.journal, here.catalog)
    ]
    return {"groups": groups, "unsettled": len(noted)}
