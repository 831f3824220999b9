"""Health checks and metrics of the site, and who may read them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from app.server.access import Access, find_access
from app.server.engine_source import SiteEngines
from app.server.guard import guarded
from app.services.visitor import is_owners
from app.storage.database import Store
from app.storage.saved_mixtures import SavedMixtures
from engine import Engine
from engine.api.health import health_routes
from engine.api.keys import ApiKeys
from engine.api.metrics import metrics_routes
from tests.app.server.guarding import LOCAL, OWNED, PAGE, TOKEN, URL

BEHIND = find_access("127.0.0.1", allowed=["desk.example.org"], trust_proxy=True, env={})
KEY = "a-key-of-this-server"


@pytest.fixture
def pages(tiny_engine: Engine) -> SimpleNamespace:
    page = SimpleNamespace(desk=SimpleNamespace(engine=tiny_engine))
    return SimpleNamespace(all={"tiny": SimpleNamespace(page=page), "other": SimpleNamespace(page=None)})


@pytest.fixture
def site(pages: SimpleNamespace, store: Store) -> Any:
    """A function that returns a client of the site."""

    def open_site(access: Access, address: str = "127.0.0.1", url: str = URL, keys: str = "") -> TestClient:
        source = SiteEngines(pages, SavedMixtures(store))
        known = ApiKeys.read(keys, local=not access.hosted)
        app = Starlette(routes=[*health_routes(source), *metrics_routes(source, known, is_owners)])
        return TestClient(guarded(app, access), base_url=url, follow_redirects=False, client=(address, 1))

    return open_site


def test_the_engines_are_those_of_the_loaded_pages(site: Any, pages: SimpleNamespace) -> None:
    client = site(LOCAL)
    assert client.get("/healthz").text == "ok\n"
    assert client.get("/readyz").json() == {"ready": True, "engines": {"tiny": "ready"}}
    assert 'mixdesk_alive{configuration="tiny"} 1.0' in client.get("/metrics").text
    pages.all["tiny"].page = None
    assert client.get("/readyz").status_code == 503


@pytest.mark.parametrize(
    ("access", "address", "url", "keys", "headers", "status"),
    [
        (LOCAL, "127.0.0.1", URL, "", {}, 200),
        (LOCAL, "127.0.0.1", URL, "", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"}, 403),
        # A desk that others reach: with a key.
        (OWNED, "127.0.0.1", URL, "", {}, 401),
        (OWNED, "203.0.113.5", URL, "", {}, 401),
        (OWNED, "203.0.113.5", URL, KEY, {}, 401),
        (OWNED, "203.0.113.5", URL, KEY, {"Authorization": "Bearer another-key-of-it"}, 401),
        (OWNED, "203.0.113.5", URL, KEY, {"Authorization": f"Bearer {KEY}"}, 200),
        (BEHIND, "127.0.0.1", "http://desk.example.org", "", {"X-Forwarded-For": "203.0.113.5"}, 401),
        (BEHIND, "127.0.0.1", "http://desk.example.org", KEY, {"Authorization": f"Bearer {KEY}"}, 200),
    ],
)
def test_metrics_are_for_this_machine_and_for_who_has_a_key(
    site: Any, access: Access, address: str, url: str, keys: str, headers: dict[str, str], status: int
) -> None:
    client = site(access, address, url, keys)
    assert client.get("/metrics", headers=headers).status_code == status
    if "Sec-Fetch-Site" not in headers:
        assert client.get("/readyz", headers=headers).status_code == 200


def test_metrics_are_for_the_owner(site: Any) -> None:
    client = site(OWNED, "203.0.113.5")
    assert client.get("/metrics", headers=PAGE).status_code == 401
    assert client.get(f"/?owner={TOKEN}", headers=PAGE).status_code == 303
    assert "mixdesk_tokens_total" in client.get("/metrics", headers=PAGE).text
