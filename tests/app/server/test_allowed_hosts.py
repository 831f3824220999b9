"""No other site reads or drives a desk, by any of the ways in which it can make a browser send requests."""

from __future__ import annotations

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from app.server.access import find_access
from app.server.guard import guarded
from app.services.app_state import Desk
from engine import Engine
from tests.app.server.guarding import PAGE, URL, app_of

EVIL = "http://evil.example"
WRITING = [
    ("/gradio_api/queue/join", {"json": {"data": [], "fn_index": 0, "session_hash": "s"}}),
    ("/gradio_api/run/predict", {"content": '{"data": [], "fn_index": 0}', "headers": {"Content-Type": "text/plain"}}),
    ("/gradio_api/upload", {"files": {"files": ("a.txt", b"one")}}),
    ("/gradio_api/cancel", {"json": {"session_hash": "s", "fn_index": 0, "event_id": "e"}}),
    ("/steer", {"json": {}}),
]
READING = [
    "/",
    "/config",
    "/gradio_api/info",
    "/gradio_api/queue/data?session_hash=s",
    "/text/run",
    "/comparisons/1.csv",
]


@pytest.fixture
def client(store, tiny_engine: Engine) -> TestClient:
    return TestClient(app_of(Desk(tiny_engine, store)), base_url=URL)


def show(request: Request) -> JSONResponse:
    """Return what of a request Gradio would read."""
    return JSONResponse(
        {"client": request.client.host, "scheme": request.url.scheme, "headers": dict(request.headers)},
        headers={"Access-Control-Allow-Origin": "*"},
    )


def shown(**settings) -> TestClient:
    methods = ["GET", "POST", "PUT", "DELETE", "OPTIONS"]
    app = Starlette(routes=[Route("/{path:path}", show, methods=methods)])
    access = find_access(settings.pop("host", "127.0.0.1"), env=settings.pop("env", {}), **settings)
    return TestClient(guarded(app, access), base_url=URL)


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:7860", "localhost.evil.example", "127.0.0.1.nip.io", "x y"]
)
def test_another_sites_name_reaches_nothing(client: TestClient, host: str) -> None:
    for path in READING:
        answer = client.get(path, headers={"Host": host, **PAGE})
        assert answer.status_code == 421 and len(answer.text.splitlines()) == 1 and "--allowed-host" in answer.text
        assert host not in answer.text
    for path, sent in WRITING:
        headers = {**sent.get("headers", {}), "Host": host, "Origin": f"http://{host}", "Sec-Fetch-Site": "same-origin"}
        assert client.post(path, **{**sent, "headers": headers}).status_code == 421


@pytest.mark.parametrize(
    "origin", [EVIL, "null", "http://127.0.0.1:3000", "https://127.0.0.1:7861", "http://localhost:7860"]
)
def test_another_site_changes_nothing(client: TestClient, origin: str) -> None:
    for path, sent in WRITING:
        answer = client.post(path, **{**sent, "headers": {**sent.get("headers", {}), "Origin": origin}})
        assert answer.status_code == 403 and len(answer.text.splitlines()) == 1, path
        asked = {"Origin": origin, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x"}
        answer = client.options(path, headers=asked)
        assert answer.status_code == 403
        assert not [name for name in answer.headers if name.startswith("access-control-")]


def test_another_site_reads_nothing(client: TestClient) -> None:
    for path in READING:
        assert client.get(path, headers={"Origin": EVIL}).status_code == 403
        for site, mode in (("cross-site", "no-cors"), ("cross-site", "cors"), ("same-site", "cors")):
            headers = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": mode}
            assert client.get(path, headers=headers).status_code == 403, (path, headers)


def test_a_link_from_another_site_opens_the_desk(client: TestClient) -> None:
    answer = client.get("/", headers={**PAGE, "Sec-Fetch-Site": "cross-site"})
    assert answer.status_code == 200 and "gradio_config" in answer.text
    form = {**PAGE, "Sec-Fetch-Site": "cross-site", "Origin": EVIL}
    assert client.post("/steer", headers=form).status_code == 403


def test_the_desks_own_page_and_other_programs_pass(client: TestClient) -> None:
    own = {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors", "Origin": URL}
    assert client.get("/config", headers=own).status_code == 200
    assert client.get("/config").status_code == 200
    for host in ("localhost:7860", "127.0.0.1:7860", "[::1]:7860"):
        answer = client.post("/gradio_api/reset", json={}, headers={"Host": host, "Origin": f"http://{host}"})
        assert answer.status_code not in (403, 421)


def test_there_are_no_cors_headers(client: TestClient) -> None:
    for app in (client, shown()):
        for origin in ({}, {"Origin": URL}, {"Origin": EVIL}):
            answer = app.get("/config", headers=origin)
            assert not [name for name in answer.headers if name.startswith("access-control-")]


def test_headers_of_a_proxy_are_only_taken_from_one() -> None:
    sent = {
        "X-Forwarded-Host": "evil.example",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-For": "6.6.6.6",
        "X-Gradio-Server": EVIL,
        "Forwarded": "for=6.6.6.6",
    }
    got = shown().get("/", headers=sent).json()
    assert (got["client"], got["scheme"]) == ("testclient", "http")
    assert not {name.lower() for name in sent} & set(got["headers"])
    assert "evil" not in str(got) and "6.6.6.6" not in str(got)


def test_a_trusted_proxy() -> None:
    client = shown(allowed=["mix.org"], trust_proxy=True)
    # The last hop is the proxy's own word, those before it may be the client's.
    sent = {"X-Forwarded-Host": "mix.org", "X-Forwarded-Proto": "https", "X-Forwarded-For": "6.6.6.6, 9.9.9.9"}
    got = client.get("/", headers=sent).json()
    assert (got["client"], got["scheme"], got["headers"]["x-forwarded-host"]) == ("9.9.9.9", "https", "mix.org")
    own = {**sent, "Origin": "https://mix.org", "Sec-Fetch-Site": "same-origin"}
    assert client.post("/", headers=own).status_code == 200
    assert client.get("/", headers={**sent, "X-Forwarded-Host": "evil.example"}).status_code == 421
    assert client.get("/", headers={**sent, "X-Forwarded-Host": "mix.org, evil.example"}).status_code == 421
    assert client.post("/", headers={**own, "Origin": EVIL}).status_code == 403
    assert client.post("/", headers={**own, "Origin": "https://mix.org:8443"}).status_code == 403


def test_a_proxy_that_is_not_trusted_is_allowed_by_its_name() -> None:
    own = {"Origin": "https://mix.org", "Sec-Fetch-Site": "same-origin"}
    refused = shown().post("/", headers=own)
    assert refused.status_code == 403 and "--allowed-host" in refused.text
    for settings in ({"allowed": ["mix.org"]}, {"root": "https://mix.org/desk"}):
        assert shown(**settings).post("/", headers=own).status_code == 200


def test_gradio_echoes_no_host(client: TestClient) -> None:
    answer = client.get("/config", headers={"X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "https"})
    assert answer.status_code == 200 and "evil.example" not in answer.text
    assert answer.json()["root"] == URL


def test_a_web_socket_is_refused() -> None:
    from starlette.websockets import WebSocketDisconnect

    with pytest.raises(WebSocketDisconnect), shown().websocket_connect("/", headers={"Host": "evil.example"}):
        pass
