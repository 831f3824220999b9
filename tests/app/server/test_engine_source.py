"""OpenAI's protocol beside the page: which engines and mixtures it has, and what the site's checks do to it."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.testclient import TestClient

from app.schemas.desk_state import MixtureState
from app.server.access import Access, find_access
from app.server.app import Site
from app.server.engine_source import SiteEngines
from app.server.guard import guarded
from app.storage.saved_mixtures import SavedMixtures
from engine import Engine
from engine.api.keys import ApiKeys
from engine.api.routes import api_routes
from tests.app.server.test_configurations import FakeDesk, Scene

LOCAL = find_access("127.0.0.1", env={})
HOSTED = find_access("0.0.0.0", allowed=["desk.example"], env={})
KEY = "a-key-of-the-tests"
CHAT = {"model": "warm", "messages": [{"role": "user", "content": "mix"}], "max_tokens": 3, "seed": 1}
BEARER = {"Authorization": f"Bearer {KEY}"}


def state(faders: dict[str, float], **settings: Any) -> MixtureState:
    return MixtureState(faders=faders, **{"rule": "geometric", "gain": 1.0, "exponent": 1.0, **settings})


@pytest.fixture
def source(tiny, store, tiny_engine: Engine) -> SiteEngines:
    scene, mixtures = Scene(tiny, store), SavedMixtures(store)
    for configuration in list(scene.configurations.all.values())[:1]:
        assert isinstance(configuration.page.desk, FakeDesk)
        configuration.page.desk.engine = tiny_engine
    mixtures.save("warm", state({"plain": 0.9, "narrow": 0.3, "stabilized": 0.0}, gain=1.5))
    mixtures.save("soloed", state({"plain": 0.9, "narrow": 0.3}, channels={"solo": ["narrow"]}))
    mixtures.save("silent", state({"plain": 0.0}))
    mixtures.save("of another desk", state({"gone": 1.0}))
    return SiteEngines(scene.configurations, mixtures)


def client_of(source: SiteEngines, access: Access, keys: ApiKeys, peer: str = "127.0.0.1") -> TestClient:
    routes = api_routes(source, keys)
    site = guarded(Site(source.configurations, "", routes), access)
    return TestClient(site, base_url="http://127.0.0.1:7860", client=(peer, 5000))


def test_loaded_configurations_and_saved_mixtures(source: SiteEngines, tiny_engine: Engine) -> None:
    assert dict(source.engines()) == {"one": tiny_engine}
    client = client_of(source, LOCAL, ApiKeys())
    names = [model["id"] for model in client.get("/v1/models").json()["data"]]
    assert names == ["reference", "plain", "stabilized", "narrow", "soloed", "warm"]
    for name, weights in {"warm": {"plain": 0.75, "narrow": 0.25}, "one/soloed": {"narrow": 1.0}}.items():
        found = client.get(f"/v1/models/{name}").json()["mixdesk"]["weights"]
        assert {policy: weight for policy, weight in found.items() if weight} == pytest.approx(weights)
    for name in ("silent", "of another desk", "two/plain", "unknown"):
        assert client.get(f"/v1/models/{name}").status_code == 404, name
    answer = client.post("/v1/chat/completions", json=CHAT).json()
    own = tiny_engine.generate("mix", {"plain": 3, "narrow": 1}, gain=1.5, max_new_tokens=3, seed=1, temperature=1.0)
    assert answer["choices"][0]["message"]["content"] == own.text


def test_the_desk_of_one_person_serves_programs_of_this_machine(source: SiteEngines) -> None:
    client = client_of(source, LOCAL, ApiKeys())
    assert client.get("/v1/models").status_code == 200
    foreign = [{"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {"Host": "evil.example"}]
    for headers in foreign:
        answer = client.post("/v1/chat/completions", json=CHAT, headers=headers)
        assert answer.status_code in (403, 421) and answer.json()["error"]["message"], headers
    assert client_of(source, LOCAL, ApiKeys(), "192.168.1.7").get("/v1/models").status_code == 401


def test_a_hosted_desk_serves_those_with_a_key_and_nobody_else(source: SiteEngines) -> None:
    keys = ApiKeys([KEY], local=not HOSTED.hosted)
    for peer in ("127.0.0.1", "203.0.113.9"):
        client = client_of(source, HOSTED, keys, peer)
        host = {"Host": "desk.example"}
        assert client.post("/v1/chat/completions", json=CHAT, headers={**BEARER, **host}).status_code == 200
        assert client.get("/v1/models", headers=host).status_code == 401
        assert client.get("/v1/models", headers={**BEARER, "Host": "other.example"}).status_code == 421
        # A page of another site that got hold of a key is refused by the site's own check.
        refused = client.get("/v1/models", headers={**BEARER, **host, "Origin": "http://evil.example"})
        assert refused.status_code == 403 and refused.json()["error"]["type"] == "invalid_request_error"
    without = client_of(source, HOSTED, ApiKeys(local=not HOSTED.hosted))
    assert without.get("/v1/models").status_code == 401, "behind a proxy everybody has a loopback address"


def test_the_sites_limits_hold_in_the_envelope(source: SiteEngines, monkeypatch: pytest.MonkeyPatch) -> None:
    client = client_of(source, LOCAL, ApiKeys())
    answer = client.post("/v1/chat/completions", content=b" " * 1_100_000)
    assert answer.status_code == 413 and "larger than" in answer.json()["error"]["message"]
    assert answer.headers["connection"] == "close"
    assert client.get("/v1/nothing").json()["error"]["code"] == "unknown_url"
    assert client.post("/tokenize", json={"prompt": "mix"}).json()["count"] > 0
    monkeypatch.setattr("app.server.request_limits.PER_ADDRESS", 0)
    busy = client.get("/v1/models")
    assert busy.status_code == 429 and busy.json()["error"]["type"] == "rate_limit_error"
    assert busy.headers["retry-after"] == "5"
    page = client.get("/")
    assert page.status_code == 429 and page.text.startswith("Too many requests"), "a browser shows a line of text"
