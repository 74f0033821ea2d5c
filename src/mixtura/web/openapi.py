"""The description of the service for programs: what FastAPI knows, and all the ways in which it can refuse."""

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

import mixtura
from mixtura.web import schemas
from mixtura.web.problems import MEDIA_TYPE
from mixtura.web.request_info import HEALTH_PATH, PROBE_PATHS, QUERY_PATHS
from mixtura.web.settings import Settings

COMMON_STATUSES = (400, 403, 404, 405, 422, 431, 500)
BODY_STATUSES = (408, 413, 415)
TOKEN_STATUS, EDIT_STATUS, RATE_STATUS, BUSY_STATUS = 401, 409, 429, 503
ALL_STATUSES = sorted({*COMMON_STATUSES, *BODY_STATUSES, TOKEN_STATUS, EDIT_STATUS, RATE_STATUS, BUSY_STATUS})

DESCRIPTION = """Find out which product of a catalog a photo shows, or that it shows none of them, and why.

Send photos as they are, or as base64 in JSON. Requests name things by id; the service never takes a path or an address
from a request."""


def describe(app: FastAPI, settings: Settings) -> dict[str, Any]:
    """The OpenAPI document of an app."""
    made = get_openapi(
        title="mixtura",
        version=mixtura.__version__,
        summary="Classify photos against a catalog, and edit the catalog.",
        description=DESCRIPTION,
        routes=app.routes,
    )
    components = made.setdefault("components", {})
    named = components.setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        named.pop(name, None)
    for model in (schemas.Problem, schemas.Photos):
        named[model.__name__] = model.model_json_schema(ref_template="#/components/schemas/{model}")
    components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    components["responses"] = {str(status): _problem(status) for status in ALL_STATUSES}
    for path, operations in made["paths"].items():
        for method, operation in operations.items():
            _complete(operation, path, method, settings)
    return made


def _complete(operation: dict[str, Any], path: str, method: str, settings: Settings) -> None:
    """Add to one operation the refusals that the guards may give, and whether it needs the token."""
    edits = method != "get" and path not in QUERY_PATHS
    limited = path != HEALTH_PATH
    needs_token = edits or (settings.public and path not in PROBE_PATHS)
    statuses = [*COMMON_STATUSES, *(BODY_STATUSES * (method != "get"))]
    statuses += [BUSY_STATUS] * limited + [RATE_STATUS] * (limited and settings.public)
    statuses += [TOKEN_STATUS] * needs_token + [EDIT_STATUS] * edits
    responses = operation["responses"]
    responses.pop("422", None)  # FastAPI's own form of it, which is not ours
    responses |= {str(status): {"$ref": f"#/components/responses/{status}"} for status in sorted(statuses)}
    if needs_token:
        operation["security"] = [{"token": []}]


def _problem(status: int) -> dict[str, Any]:
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {"description": HTTPStatus(status).phrase, "content": content}
