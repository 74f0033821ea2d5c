"""What was asked: feedback on it, drift over the days, and photos that may be new products."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Response

from mixtura.tasks import discover
from mixtura.tasks import drift as drift_task
from mixtura.web import schemas
from mixtura.web.answers import plain
from mixtura.web.routes.products import jpeg
from mixtura.web.service import Service, ServiceDep, product_of

DecisionId = Annotated[str, Path(pattern=schemas.ID_PATTERN)]

router = APIRouter(tags=["journal"])


@router.post("/v1/feedback", status_code=204)
async def feedback(service: ServiceDep, given: schemas.Feedback) -> None:
    """Say what a photo that was asked about did show."""
    await service.edit(lambda: _tell(service, given))


@router.get("/v1/drift", response_model=schemas.Drift)
async def drift(service: ServiceDep) -> dict[str, Any]:
    """Whether photos still look as they did when the catalog was calibrated."""
    return plain(await service.compute(service.drift, lambda: drift_task.run(service.journal, service.catalog)))


@router.get("/v1/unknowns", response_model=schemas.Unknowns)
async def unknowns(service: ServiceDep) -> dict[str, Any]:
    """Photos judged unknown that nobody has settled, in groups that look alike."""
    return await service.compute(service.groups, lambda: _groups(service))


@router.get("/v1/decisions/{id}/picture", response_class=Response, responses={200: {"content": {"image/jpeg": {}}}})
async def asked(service: ServiceDep, id: DecisionId) -> Response:
    """The small picture of a photo that was asked about, where photos are kept."""
    return jpeg(await service.read(lambda: service.journal.picture(id)))


def _tell(service: Service, given: schemas.Feedback) -> None:
    product = None if given.product is None else product_of(service.catalog, given.product).id
    service.journal.feedback(given.decision, product)


def _groups(service: Service) -> dict[str, Any]:
    noted = service.journal.unknowns()
    kept = {note.id for note in noted if note.photo}
    groups = [
        plain(group) | {"pictures": [f"/v1/decisions/{id}/picture" for id in group.ids if id in kept]}
        for group in discover.run(service.journal, service.catalog)
    ]
    return {"groups": groups, "unsettled": len(noted)}
