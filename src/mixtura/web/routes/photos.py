"""Photos in, decisions or similar items out."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from mixtura.web import schemas
from mixtura.web.answers import decision, model, neighbor, unreadable
from mixtura.web.photos import Decided, Unreadable
from mixtura.web.problems import Refusal
from mixtura.web.service import Service, ServiceDep
from mixtura.web.uploads import JSON_TYPE, photos_in

IMAGE_TYPES = ("image/jpeg", "image/png", "image/webp", "image/gif", "image/bmp", "image/x-portable-anymap")

REQUEST_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "One photo as it is, or several as base64 or as files of a form (multipart/form-data).",
        "content": {kind: {"schema": {"type": "string", "format": "binary"}} for kind in IMAGE_TYPES}
        | {"application/json": {"schema": {"$ref": "#/components/schemas/Photos"}}},
    }
}

router = APIRouter(tags=["photos"])


class _Decide(BaseModel):
    model_config = ConfigDict(extra="forbid")
    neighbors: int = Field(3, ge=0, le=20, description="Most similar items to name with each decision.")


class _Search(BaseModel):
    model_config = ConfigDict(extra="forbid")
    k: int = Field(10, ge=1, le=100, description="Items to find for each photo.")


@router.post("/v1/classify", response_model=schemas.Decisions, openapi_extra=REQUEST_BODY)
async def classify(service: ServiceDep, request: Request, query: Annotated[_Decide, Query()]) -> dict[str, Any]:
    """Say of each photo which product it shows, or that it shows none of them."""
    answers = await _answers(service, request, query.neighbors, decide=True)
    made_with = next((a.view for a in answers if isinstance(a, Decided)), None)
    view = made_with or await service.read(lambda: service.catalog.view())
    made = [unreadable(a) if isinstance(a, Unreadable) else decision(a) for a in answers]
    for answer in answers:
        verdict = answer.decision.verdict if isinstance(answer, Decided) else "unreadable"
        service.telemetry.decisions.labels(verdict).inc()
    return {"model": model(service, view), "decisions": made}


@router.post("/v1/search", response_model=schemas.Results, openapi_extra=REQUEST_BODY)
async def search(service: ServiceDep, request: Request, query: Annotated[_Search, Query()]) -> dict[str, Any]:
    """Find the items of the catalog that are most like each photo."""
    answers = await _answers(service, request, query.k, decide=False)
    return {"results": [unreadable(a) if isinstance(a, Unreadable) else [neighbor(one) for one in a] for a in answers]}


async def _answers(service: Service, request: Request, count: int, decide: bool) -> list[Any]:
    body, content_type = await request.body(), request.headers.get("content-type", "")
    photos = await service.read(lambda: photos_in(body, content_type))
    answers = await service.photos.answer(photos, count, decide)
    if isinstance(answers[0], Unreadable) and len(answers) == 1 and not content_type.lower().startswith(JSON_TYPE):
        raise Refusal(422, answers[0].message)
    return answers
