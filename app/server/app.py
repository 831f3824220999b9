"""The web application: the first desk at /, each other at /desk/<slug>/.

/configurations lists and loads the menu's configurations; /fetch lists, starts and cancels downloads. What concerns no
desk, such as /studies and /annotate, is given to the site as more routes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.server.allowed_hosts import is_foreign
from app.server.configurations import Configurations, Page, for_visitors
from app.server.gradio_compat import forget_abandoned, forget_unread
from app.services.visitor import visitor_of_scope
from engine import InputError
from engine.inference.heap import trim_heap

UNKNOWN = "There is no such configuration here. The first desk is at the address without /desk and what follows it.\n"
FOREIGN = "Only this site's own pages may ask for that.\n"
OWNERS = "Only the owner of this desk can load other configurations or fetch policies.\n"
SWEEP = 10.0  # seconds between two looks for what sessions have left behind
CLOSED = "This desk was closed to make room for another. Open it again from the menu.\n"


class Site:
    """ASGI application that routes each request to its desk.

    `root` is the public path or URL of the site behind a proxy. Starlette's Mount is not used: behind a proxy that
    strips the root from the path, its prefixes and Gradio's do not add up.
    """

    def __init__(self, configurations: Configurations, root: str = "", more: Sequence[Route] = ()) -> None:
        """Make the site's own routes.

        Args:
            configurations: The desks.
            root: The public path or URL behind a proxy.
            more: More routes that belong to no desk. All addresses that begin like one of the site's own are its own.
        """
        self.configurations = configurations
        self.root = urlsplit(root).path.rstrip("/")
        routes = [
            *more,
            Route("/configurations", self.show_all),
            Route("/configurations/{slug}", self.show, methods=["GET"]),
            Route("/configurations/{slug}", self.ask, methods=["POST"]),
            Route("/fetch", self.show_fetches),
            Route("/fetch/{slug}", self.start_fetch, methods=["POST"]),
            Route("/fetch/{slug}", self.cancel_fetch, methods=["DELETE"]),
        ]
        self.own = Starlette(routes=routes, lifespan=self.lifespan)
        self.beginnings = {route.path.split("/")[1] for route in routes}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.own(scope, receive, send)
        path = scope["path"]
        if self.root and (path == self.root or path.startswith(f"{self.root}/")):
            path = path[len(self.root) :] or "/"
        app: ASGIApp
        if path.lstrip("/").partition("/")[0] in self.beginnings:
            app = self.own
        elif path.startswith("/desk/"):
            _, _, slug, *rest = path.split("/")
            path = "/" + "/".join(rest)
            app = self.desk(slug, path if rest else "")
        else:
            page = self.configurations.first.page
            assert page is not None
            app = page.app
        return await app({**scope, "path": path, "raw_path": path.encode(), "root_path": ""}, receive, send)

    def desk(self, slug: str, path: str) -> ASGIApp:
        """Return the ASGI application or response for a configuration's desk.

        Args:
            slug: The configuration's slug.
            path: The path within the desk; "" if the address lacks the slash after the slug.
        """
        configuration = self.configurations.all.get(slug)
        if configuration is None:
            return PlainTextResponse(UNKNOWN, 404)
        if not path:
            return RedirectResponse(f"{slug}/")
        # Relative: the path prefix outside a proxy is not known here.
        if configuration is self.configurations.first:
            return RedirectResponse("../../")
        if configuration.page is None:
            return RedirectResponse(f"../../?load={slug}", 303) if path == "/" else PlainTextResponse(CLOSED, 410)
        return counting(configuration.page)

    async def show_all(self, _: Request) -> Response:
        """Return the state of every configuration, and why it cannot be loaded yet, as JSON."""
        missing = self.configurations.fetching.missing
        return answer_request(
            [{**other.described(), "missing": missing(slug)} for slug, other in self.configurations.all.items()]
        )

    async def show(self, request: Request) -> Response:
        """Return the state of one configuration as JSON, or 404."""
        configuration = self.configurations.all.get(request.path_params["slug"])
        return answer_request(configuration.described()) if configuration else PlainTextResponse(UNKNOWN, 404)

    async def ask(self, request: Request) -> Response:
        """Start loading a configuration and return its state as JSON; 403 unless the owner asks, on this site."""
        configuration = self.configurations.all.get(request.path_params["slug"])
        if configuration is None:
            return PlainTextResponse(UNKNOWN, 404)
        # Another site's page may not fill this machine's memory.
        if is_foreign(request):
            return PlainTextResponse(FOREIGN, 403)
        # One that is loaded, or being loaded, costs nothing more.
        if configuration.state in ("closed", "failed") and not visitor_of_scope(request.scope).owner:
            return PlainTextResponse(OWNERS, 403)
        self.configurations.ask(configuration)
        return answer_request(configuration.described())

    async def show_fetches(self, _: Request) -> Response:
        """Return the state of every download as JSON."""
        return answer_request([self._fetch_described(slug) for slug in self.configurations.fetching.all])

    async def start_fetch(self, request: Request) -> Response:
        """Start a download and return its state; 409 if another one is running."""
        return self._change_fetch(request, self.configurations.fetching.start)

    async def cancel_fetch(self, request: Request) -> Response:
        """Cancel a download and return its state."""
        return self._change_fetch(request, self.configurations.fetching.cancel)

    def _change_fetch(self, request: Request, change: Callable[[str], None]) -> Response:
        slug = request.path_params["slug"]
        if slug not in self.configurations.fetching.all:
            return PlainTextResponse("There is nothing to fetch for that configuration.\n", 404)
        if is_foreign(request):  # nor its disk
            return PlainTextResponse(FOREIGN, 403)
        if not visitor_of_scope(request.scope).owner:
            return PlainTextResponse(OWNERS, 403)
        try:
            change(slug)
        except InputError as error:
            return PlainTextResponse(f"{error}\n", 409)
        return answer_request(self._fetch_described(slug))

    def _fetch_described(self, slug: str) -> dict[str, Any]:
        described = self.configurations.fetching.all[slug].described()
        file = self.configurations.all[slug].file
        return {**described, "says": for_visitors(described["says"], file)}

    async def sweep(self) -> None:
        """Remove from all desks, again and again, what sessions have left behind that ended without notice."""
        while True:
            await asyncio.sleep(SWEEP)
            for configuration in self.configurations.all.values():
                if configuration.page:
                    configuration.page.desk.runs.sweep()
                    forget_unread(configuration.page.app)
                    if forget_abandoned(configuration.page.app, configuration.page.desk.runs.open_hashes):
                        await asyncio.to_thread(trim_heap)

    @asynccontextmanager
    async def lifespan(self, _: Any) -> AsyncIterator[None]:
        """Start the first desk's application and resume interrupted downloads; close all pages at shutdown."""
        first = self.configurations.first.page
        assert first is not None
        await self.configurations.start(first)
        self.configurations.take_up_fetches()
        sweeping = asyncio.create_task(self.sweep())
        try:
            yield
        finally:
            sweeping.cancel()
            async with AsyncExitStack() as ending:
                for configuration in self.configurations.all.values():
                    if configuration.page:
                        ending.push_async_callback(configuration.page.running.aclose)


def answer_request(value: Any) -> Response:
    """Return a value as a JSON response that is not cached."""
    return JSONResponse(value, headers={"Cache-Control": "no-store"})


def counting(page: Page) -> ASGIApp:
    """Wrap the page's application to count its requests, since a page in use is not closed.

    A heartbeat does not count as use: it only shows that a window is open, and ends with the page.
    """

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if "/heartbeat/" in scope["path"]:
            return await until_closed(page, scope, receive, send)
        page.requests += 1
        try:
            await page.app(scope, receive, send)
        finally:
            page.requests -= 1
            page.used = time.monotonic()

    return app


async def until_closed(page: Page, scope: Scope, receive: Receive, send: Send) -> None:
    """Serve a request that lasts as long as a window is open, or until the page is closed."""

    async def receive_or_close() -> Message:
        received, closed = asyncio.ensure_future(receive()), asyncio.ensure_future(page.closed.wait())
        try:
            await asyncio.wait([received, closed], return_when=asyncio.FIRST_COMPLETED)
            return received.result() if received.done() else {"type": "http.disconnect"}
        finally:
            received.cancel()
            closed.cancel()

    await page.app(scope, receive_or_close, send)
    if page.closed.is_set():
        await send({"type": "http.response.body", "body": b"", "more_body": False})
