"""The description of the service for programs: what FastAPI knows, and all the ways in which it can refuse."""

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

import mixtura
from mixtura.web import schemas
from mixtura.web.guards import HEALTH, PHOTOS
from mixtura.web.problems import MEDIA_TYPE
from mixtura.web.settings import Settings

ALWAYS = (400, 403, 404, 405, 422, 431, 500)
LIMITED = (429, 503)
WITH_BODY = (408, 413, 415)
WITH_TOKEN = (401,)
EDITS = (409,)

ABOUT = """Say which product of a catalog a photo shows, or that it shows none of them, and why.

Send photos as they are or as base64 in JSON. Names are ids; no path and no address is ever taken from a request."""


def described(app: FastAPI, settings: Settings) -> dict[str, Any]:
    """The OpenAPI document of an app."""
    made = get_openapi(
        title="mixtura",
        version=mixtura.__version__,
        summary="A catalog behind REST.",
        description=ABOUT,
        routes=app.routes,
    )
    components = made.setdefault("components", {})
    named = components.setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        named.pop(name, None)
    for model in (schemas.Problem, schemas.Photos):
        named[model.__name__] = model.model_json_schema(ref_template="#/components/schemas/{model}")
    components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    components["responses"] = {str(status): _problem(status) for status in _all()}
    for path, operations in made["paths"].items():
        for method, operation in operations.items():
            _complete(operation, path, method, settings)
    return made


def _complete(operation: dict[str, Any], path: str, method: str, settings: Settings) -> None:
    """Add to one operation the refusals that the guards may give, and whether it needs the token."""
    changes = method != "get" and path not in PHOTOS
    limited = path != HEALTH
    closed = changes or (settings.public and limited)
    statuses = [*ALWAYS, *(LIMITED * limited), *(WITH_BODY * (method != "get")), *(WITH_TOKEN * closed)]
    statuses += EDITS if changes else ()
    responses = operation["responses"]
    responses.pop("422", None)  # FastAPI's own form of it, which is not ours
    responses |= {str(status): {"$ref": f"#/components/responses/{status}"} for status in sorted(statuses)}
    if closed:
        operation["security"] = [{"token": []}]


def _all() -> list[int]:
    return sorted({*ALWAYS, *LIMITED, *WITH_BODY, *WITH_TOKEN, *EDITS})


def _problem(status: int) -> dict[str, Any]:
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {"description": HTTPStatus(status).phrase, "content": content}
