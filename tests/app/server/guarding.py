"""A desk behind the checks that `python -m app` puts in front of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from starlette.testclient import TestClient

from app.server.access import Access, find_access
from app.server.desk_app import web_app
from app.server.guard import guarded
from app.services.app_state import Desk
from app.ui.page import build_page

URL = "http://127.0.0.1:7860"
PAGE = {"Accept": "text/html", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Site": "none"}
TOKEN = "correct-horse-battery"
LOCAL = find_access("127.0.0.1", env={})
OWNED = find_access("127.0.0.1", owner_token=TOKEN, env={})


def app_of(desk: Desk, access: Access = LOCAL) -> Any:
    return guarded(web_app(build_page(desk), desk), access)


@contextmanager
def browsing(app: Any, url: str = URL, **settings: Any) -> Iterator[TestClient]:
    """A browser without cookies that has opened the page."""
    client = TestClient(app, base_url=url, follow_redirects=False, **settings)
    assert client.get("/", headers=PAGE).status_code == 200
    yield client
