"""The service as one ASGI application."""

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from mixtura.catalog import Catalog
from mixtura.catalog.journal import Journal
from mixtura.pipeline.factory import PhotoEncoder
from mixtura.web.guards import Guard
from mixtura.web.openapi import described
from mixtura.web.routes import add_routes, methods_at
from mixtura.web.service import Service
from mixtura.web.settings import Settings


def create_app(catalog: Catalog, journal: Journal, encoder: PhotoEncoder, settings: Settings) -> FastAPI:
    """The page and the REST interface of one catalog.

    Args:
        catalog: what is served.
        journal: where decisions are noted.
        encoder: the one that the catalog was made with.
        settings: whom to answer, and how much.
    """
    service = Service(catalog, journal, encoder, settings)
    app = FastAPI(
        lifespan=service.running, openapi_url="/openapi.json", docs_url=None, redoc_url=None, redirect_slashes=False
    )
    app.state.service = service
    add_routes(app)
    app.add_middleware(Guard, settings=settings, telemetry=service.telemetry, room=service.photos.places.check)
    for kind in (HTTPException, RequestValidationError):
        app.add_exception_handler(kind, _passed_on)
    setattr(app, "openapi", _once(app, settings))  # noqa: B010 - the hook that FastAPI documents
    return app


async def _passed_on(request: Request, error: Exception) -> Response:
    """Leave it to the guard, which alone knows the request's id; say all methods that an address takes."""
    if isinstance(error, HTTPException) and error.status_code == 405:
        raise HTTPException(405, headers={"Allow": ", ".join(sorted(methods_at(request.scope)))})
    raise error


def _once(app: FastAPI, settings: Settings) -> Any:
    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = described(app, settings)
        return app.openapi_schema

    return openapi
