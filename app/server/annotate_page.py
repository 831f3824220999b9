"""The annotators' page: its HTML, scripts and style sheets, from static/annotate/.

The page has nothing in common with the desk's: it is plain HTML with ES modules, under a policy that allows no inline
script or style. All its addresses are relative, since the site may be behind a path prefix.
"""

from __future__ import annotations

from functools import lru_cache
from html import escape
from pathlib import Path
from string import Template

from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from app.server.versioned_files import IMMUTABLE, digest_of, read_files

FOLDER = Path(__file__).parents[1] / "static" / "annotate"
SHELL, NOTICE = "index.html", "notice.html"  # templates; everything else is served as it is
MEDIA_TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
STRICT_POLICY = "; ".join(
    (
        *("default-src 'none'", "script-src 'self'", "style-src 'self'", "img-src 'self'", "connect-src 'self'"),
        *("form-action 'self'", "base-uri 'none'", "frame-ancestors 'none'"),
    )
)
PAGE_HEADERS = {"Content-Security-Policy": STRICT_POLICY, "Cache-Control": "no-store"}


def annotate_shell(name: str) -> Response:
    """Return the annotators' page of a study, which asks for everything else by itself.

    Args:
        name: The study's name.
    """
    modules = (file for file in load_assets() if file.endswith(".js"))
    preloads = "\n".join(f'<link rel="modulepreload" href="{asset_folder()}/{file}">' for file in modules)
    page = _template(SHELL).substitute(name=escape(name), folder=asset_folder(), preloads=preloads)
    return HTMLResponse(page, headers=PAGE_HEADERS)


def annotate_notice(title: str, sentence: str, status: int) -> Response:
    """Return a page that says one sentence, such as that there is no such study.

    Args:
        title: The heading.
        sentence: What is wrong, and how to mend it.
        status: The HTTP status.
    """
    page = _template(NOTICE).substitute(title=escape(title), sentence=escape(sentence), folder=asset_folder())
    return HTMLResponse(page, status, headers=PAGE_HEADERS)


def annotate_asset_route() -> Route:
    """Return the route of the page's scripts and style sheets; it must come before that of the studies."""
    return Route("/annotate/static/{version}/{name:path}", _asset, methods=["GET"])


@lru_cache
def load_assets() -> dict[str, bytes]:
    """Return every file of the page but its templates, by its path under static/annotate/."""
    return read_files(FOLDER, MEDIA_TYPES)


@lru_cache
def assets_version() -> str:
    """Return the digest of the page's files."""
    return digest_of(load_assets())


def asset_folder() -> str:
    """Return the folder of the page's files, relative to a study's address."""
    return f"static/{assets_version()}"


def _asset(request: Request) -> Response:
    name = request.path_params["name"]
    content = load_assets().get(name)
    if content is None or request.path_params["version"] != assets_version():
        return PlainTextResponse("There is no such file: reload the page.\n", 404)
    return Response(content, media_type=MEDIA_TYPES[Path(name).suffix], headers={"Cache-Control": IMMUTABLE})


@lru_cache
def _template(name: str) -> Template:
    return Template((FOLDER / name).read_text(encoding="utf-8"))
