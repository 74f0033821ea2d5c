"""The service about itself: its model, whether it lives and is ready, and what it has counted."""

from typing import Any

from fastapi import APIRouter
from starlette.responses import PlainTextResponse

from mixtura.web import answers, schemas, telemetry
from mixtura.web.problems import busy
from mixtura.web.service import Here

router = APIRouter(tags=["service"])


@router.get("/v1/model", response_model=schemas.Model)
async def model(here: Here) -> dict[str, Any]:
    """What answers here."""
    return answers.model(here, await here.read(here.catalog.view))


@router.get("/healthz", response_model=schemas.Health)
async def health() -> dict[str, str]:
    """Whether the server answers; needs no token and tells nothing else."""
    return {"status": "ok"}


@router.get("/readyz", response_model=schemas.Health)
async def ready(here: Here) -> dict[str, str]:
    """Whether the catalog can be read and photos are being answered."""
    if not here.ready:
        raise busy("The service is starting or stopping.", 2)
    await here.read(lambda: here.catalog.revision)
    return {"status": "ok"}


@router.get(
    "/metrics",
    response_class=PlainTextResponse,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def metrics(here: Here) -> PlainTextResponse:
    """Counters, as Prometheus reads them."""
    batcher, revision = here.photos.batcher, await here.read(lambda: here.catalog.revision)
    gauges = {
        "catalog_revision": ("Number of the last edit of the catalog.", revision),
        "photos_waiting": ("Photos that no batch has taken yet.", batcher.waiting),
        "photos_in_work": ("Photos that have a place.", here.photos.places.taken),
        "batches": ("Batches that the encoder has computed.", batcher.batches),
        "batched_photos": ("Photos in these batches.", batcher.items),
        "ready": ("Whether photos are being answered.", int(here.ready)),
    }
    return PlainTextResponse(here.telemetry.text(gauges), media_type=telemetry.MEDIA_TYPE)
