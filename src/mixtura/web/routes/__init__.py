"""The addresses of the service, a file for each kind of thing."""

from fastapi import FastAPI
from starlette.routing import Match, Route
from starlette.types import Scope

from mixtura.web.routes import about, journal, pages, photos, products

ROUTERS = tuple(module.router for module in (photos, products, journal, about, pages))


def add_routes(app: FastAPI) -> None:
    """Put all addresses into the app."""
    for router in ROUTERS:
        app.include_router(router)


def methods_at(scope: Scope) -> set[str]:
    """The methods of all routes at the address of a request; one route by itself knows only its own.

    The app is among the scope and knows the route of its own description.
    """
    routes = [route for router in (*ROUTERS, scope["app"]) for route in router.routes if isinstance(route, Route)]
    found = {method for route in routes if route.matches(scope)[0] != Match.NONE for method in route.methods or ()}
    return found | {"HEAD"} if "GET" in found else found
