"""The service about itself: its model, whether it lives and is ready, and what it has counted."""

from typing import Annotated, Any

from fastapi import APIRouter, Header, Response

from mixtura.web import answers, schemas
from mixtura.web.service import ServiceDep

METRICS_TYPES = ("text/plain", "application/openmetrics-text")

router = APIRouter(tags=["service"])


@router.get("/v1/model", response_model=schemas.Model)
async def model(service: ServiceDep) -> dict[str, Any]:
    """The model that answers."""
    return answers.model(service, await service.read(lambda: service.catalog.view()))


@router.get("/healthz", response_model=schemas.Health)
async def health() -> dict[str, str]:
    """Whether the server answers; needs no token and tells nothing else."""
    return {"status": "ok"}


@router.get("/readyz", response_model=schemas.Health)
async def ready(service: ServiceDep) -> dict[str, str]:
    """Whether a question would be answered now; needs no token and tells nothing else."""
    await service.check_ready()
    return {"status": "ok"}


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {kind: {"schema": {"type": "string"}} for kind in METRICS_TYPES}}},
)
async def metrics(service: ServiceDep, accept: Annotated[str, Header(include_in_schema=False)] = "") -> Response:
    """Counters and gauges for Prometheus."""
    content, content_type = await service.read(lambda: service.telemetry.exposition(accept))
    return Response(content, headers={"Content-Type": content_type})
