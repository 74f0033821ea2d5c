"""The page for people: a few files of this package, by name from a table, and by no path."""

from functools import cache
from importlib.resources import files

import jinja2
from fastapi import APIRouter
from starlette.responses import HTMLResponse, Response

import mixtura
from mixtura.web.problems import Refusal
from mixtura.web.service import Service, ServiceDep

CONTENT_TYPES = {
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}

router = APIRouter(include_in_schema=False)


@router.get("/")
async def page(service: ServiceDep) -> Response:
    """Photos in, verdicts out, for people."""
    return _render(service, "index.html")


@router.get("/docs")
async def docs(service: ServiceDep) -> Response:
    """The addresses, for programmers."""
    return _render(service, "docs.html")


@router.get("/static/{name}")
async def static(name: str) -> Response:
    """Scripts and style of the pages."""
    if name not in _static():
        raise Refusal(404, "There is nothing at this address. See /docs.")
    kind, content = _static()[name]
    return Response(content, headers={"Content-Type": kind, "Cache-Control": "no-cache"})


def _render(service: Service, name: str) -> HTMLResponse:
    template = _templates().get_template(name)
    return HTMLResponse(template.render(title=service.settings.title, version=mixtura.__version__))


@cache
def _templates() -> jinja2.Environment:
    return jinja2.Environment(loader=jinja2.PackageLoader("mixtura.web"), autoescape=True)


@cache
def _static() -> dict[str, tuple[str, bytes]]:
    """All files that are given out, read once."""
    found = (entry for entry in files("mixtura.web").joinpath("static").iterdir() if entry.is_file())
    return {
        entry.name: (CONTENT_TYPES[suffix], entry.read_bytes())
        for entry in found
        for suffix in [entry.name[entry.name.rfind(".") :]]
        if suffix in CONTENT_TYPES
    }
