"""The routes for whoever runs the desk: health checks and metrics."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from app.server.access import is_loopback, split_host
from app.server.configurations import Configurations
from app.services.visitor import visitor_of_scope
from engine import Engine
from engine.api.health import health_routes
from engine.api.metrics import metrics_routes

PRIVATE = "The metrics are for this machine, and for the owner of this desk.\n"


class LoadedPages:
    """The engines of the configurations that are loaded."""

    def __init__(self, configurations: Configurations) -> None:
        self.configurations = configurations

    def engines(self) -> Mapping[str, Engine]:
        """Return {slug: engine}, the first desk's first."""
        pages = {slug: configuration.page for slug, configuration in list(self.configurations.all.items())}
        return {slug: page.desk.engine for slug, page in pages.items() if page is not None}


def operation_routes(configurations: Configurations) -> list[Route]:
    """Return /healthz, /readyz and /metrics of a site."""
    loaded = LoadedPages(configurations)
    return [*health_routes(loaded), *metrics_routes(loaded, refuse_others)]


def refuse_others(request: Request) -> Response | None:
    """Return the refusal of a request that is neither from this machine nor from the owner, else None."""
    client = request.client.host if request.client else ""
    # A proxy on this machine also sends from a loopback address, but for a public name.
    local = is_loopback(client) and is_loopback(split_host(request.headers.get("host", ""))[0])
    if local or visitor_of_scope(request.scope).owner:
        return None
    return PlainTextResponse(PRIVATE, 403, headers={"Cache-Control": "no-store"})
