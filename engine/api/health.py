"""Health checks for a host: /healthz and /readyz."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from engine.api.source import EngineSource

UNCACHED = {"Cache-Control": "no-store"}
RETRY = 1  # seconds after which a host may ask again


def health_routes(source: EngineSource) -> list[Route]:
    """Return the routes /healthz and /readyz.

    /healthz says that the process answers; a host restarts one that does not. /readyz says whether it takes requests:
    200 if every engine is loaded and its worker runs, else 503.
    """

    async def healthz(_: Request) -> Response:
        return PlainTextResponse("ok\n", headers=UNCACHED)

    async def readyz(_: Request) -> Response:
        engines = {name: "ready" if engine.telemetry.alive else "closed" for name, engine in source.engines().items()}
        ready = bool(engines) and set(engines.values()) == {"ready"}
        headers = UNCACHED if ready else {**UNCACHED, "Retry-After": str(RETRY)}
        return JSONResponse({"ready": ready, "engines": engines}, 200 if ready else 503, headers)

    return [Route("/healthz", healthz), Route("/readyz", readyz)]
