"""Health checks and metrics of the site, and who may read them."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from app.server.access import Access, find_access
from app.server.guard import guarded
from app.server.operations import operation_routes
from engine import Engine
from tests.app.server.guarding import LOCAL, OWNED, PAGE, TOKEN, URL

PROXIED = find_access("127.0.0.1", allowed=["desk.example.org"], env={})
BEHIND = find_access("127.0.0.1", allowed=["desk.example.org"], trust_proxy=True, env={})


@pytest.fixture
def pages(tiny_engine: Engine) -> SimpleNamespace:
    page = SimpleNamespace(desk=SimpleNamespace(engine=tiny_engine))
    return SimpleNamespace(all={"tiny": SimpleNamespace(page=page), "other": SimpleNamespace(page=None)})


def client_of(pages: SimpleNamespace, access: Access, address: str = "127.0.0.1", url: str = URL) -> TestClient:
    app = guarded(Starlette(routes=operation_routes(pages)), access)
    return TestClient(app, base_url=url, follow_redirects=False, client=(address, 1))


def test_the_engines_are_those_of_the_loaded_pages(pages: SimpleNamespace) -> None:
    client = client_of(pages, LOCAL)
    assert client.get("/healthz").text == "ok\n"
    assert client.get("/readyz").json() == {"ready": True, "engines": {"tiny": "ready"}}
    assert 'mixdesk_alive{configuration="tiny"} 1.0' in client.get("/metrics").text
    pages.all["tiny"].page = None
    assert client.get("/readyz").status_code == 503


@pytest.mark.parametrize(
    ("access", "address", "url", "headers", "status"),
    [
        (LOCAL, "127.0.0.1", URL, {}, 200),
        (OWNED, "127.0.0.1", URL, {}, 200),
        (OWNED, "203.0.113.5", URL, {}, 403),
        (PROXIED, "127.0.0.1", "http://desk.example.org", {}, 403),
        (BEHIND, "127.0.0.1", "http://desk.example.org", {"X-Forwarded-For": "203.0.113.5"}, 403),
        (BEHIND, "127.0.0.1", URL, {"X-Forwarded-For": "203.0.113.5"}, 403),
        (BEHIND, "127.0.0.1", URL, {}, 200),
        (LOCAL, "127.0.0.1", URL, {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"}, 403),
    ],
)
def test_metrics_are_for_this_machine(
    pages: SimpleNamespace, access: Access, address: str, url: str, headers: dict[str, str], status: int
) -> None:
    client = client_of(pages, access, address, url)
    assert client.get("/metrics", headers=headers).status_code == status
    if "Sec-Fetch-Site" not in headers:
        assert client.get("/readyz", headers=headers).status_code == 200


def test_metrics_are_for_the_owner(pages: SimpleNamespace) -> None:
    client = client_of(pages, OWNED, "203.0.113.5")
    assert client.get("/metrics", headers=PAGE).status_code == 403
    assert client.get(f"/?owner={TOKEN}", headers=PAGE).status_code == 303
    assert "mixdesk_tokens_total" in client.get("/metrics", headers=PAGE).text
