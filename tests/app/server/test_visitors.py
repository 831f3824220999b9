"""Browsers have cookies of their own, and the owner's token makes one of them the owner's."""

from __future__ import annotations

from http.cookies import SimpleCookie

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from app.server import visitors
from app.server.access import Access, find_access
from app.server.guard import guarded
from app.services.visitor import Visitor, visitor_of_scope
from tests.app.server.guarding import LOCAL, OWNED, PAGE, TOKEN, URL, browsing

SPACE = find_access("127.0.0.1", owner_token=TOKEN, env={"SPACE_ID": "me/desk", "SPACE_HOST": "me-desk.hf.space"})


def show(request: Request) -> JSONResponse:
    visitor = visitor_of_scope(request.scope)
    return JSONResponse({"browser": visitor.browser, "owner": visitor.owner, "address": visitor.address})


def make_app(access: Access = OWNED):
    return guarded(Starlette(routes=[Route("/{path:path}", show, methods=["GET", "POST"])]), access)


def cookies_of(answer) -> SimpleCookie:
    made: SimpleCookie = SimpleCookie()
    for line in answer.headers.get_list("set-cookie"):
        made.load(line.replace("; Partitioned", ""))  # known to Python from 3.14 on
    return made


def test_each_browser_has_an_id_that_scripts_cannot_read() -> None:
    app = make_app()
    ids = set()
    for _ in range(2):
        with browsing(app) as client:
            first, second = client.get("/").json(), client.get("/text", headers=PAGE).json()
            assert first == second and len(first["browser"]) == 22
            ids.add(first["browser"])
    assert len(ids) == 2
    answer = TestClient(app, base_url=URL).get("/", headers=PAGE)
    (cookie,) = cookies_of(answer).values()
    assert cookie["httponly"] and cookie["samesite"] == "Lax" and not cookie["secure"]


def test_a_client_without_cookies_is_one_visitor() -> None:
    answer = TestClient(make_app(), base_url=URL).post("/")
    assert answer.json()["browser"] == "" and "set-cookie" not in answer.headers


@pytest.mark.parametrize("value", ["short", "x" * 23, "../../../../../../etc/", "é" * 22, ""])
def test_an_id_of_another_form_is_replaced(value: str) -> None:
    headers = {**PAGE, "Cookie": f"mixdesk_browser={value}".encode()}
    answer = TestClient(make_app(), base_url=URL).get("/", headers=headers)
    assert cookies_of(answer)["mixdesk_browser"].value == answer.json()["browser"] != value


def test_in_a_frame_on_hugging_face_the_cookie_is_sent() -> None:
    headers = {**PAGE, "Host": "me-desk.hf.space", "X-Forwarded-Proto": "https"}
    answer = TestClient(make_app(SPACE), base_url=URL).get("/", headers=headers)
    assert answer.headers["set-cookie"].endswith("SameSite=None; Secure; Partitioned")


def test_on_this_machine_without_a_token_everybody_is_the_owner() -> None:
    assert TestClient(make_app(LOCAL), base_url=URL).get("/").json()["owner"]
    assert not TestClient(make_app(OWNED), base_url=URL).get("/").json()["owner"]
    assert not TestClient(make_app(find_access("0.0.0.0", env={})), base_url=URL).get("/").json()["owner"]


def test_the_token_makes_a_browser_the_owners() -> None:
    app = make_app()
    with browsing(app) as owner, browsing(app) as other:
        answer = owner.get(f"/desk/two/?__theme=dark&owner={TOKEN}", headers=PAGE)
        assert answer.status_code == 303 and answer.headers["location"] == "./?__theme=dark"
        assert answer.headers["cache-control"] == "no-store"
        cookie = cookies_of(answer)["mixdesk_owner"]
        assert cookie["httponly"] and cookie["samesite"] == "strict" and TOKEN not in str(answer.headers)
        assert owner.get("/").json()["owner"] and not other.get("/").json()["owner"]
        # The cookie is of no use in another browser, nor one that is made up.
        for value in (cookie.value, "", TOKEN, "0" * 64):
            other.cookies.set("mixdesk_owner", value)
            assert not other.get("/").json()["owner"]
    # A browser that comes for the first time is known from then on.
    first = TestClient(app, base_url=URL, follow_redirects=False)
    assert first.get(f"/?owner={TOKEN}", headers=PAGE).headers["location"] == "./"
    assert first.get("/").json()["owner"]


def test_an_owner_ends_with_the_process() -> None:
    with browsing(make_app()) as client:
        client.get(f"/?owner={TOKEN}", headers=PAGE)
        later = TestClient(make_app(), base_url=URL, cookies=dict(client.cookies))
        assert later.get("/").json()["browser"] == client.get("/").json()["browser"]
        assert not later.get("/").json()["owner"]


def test_a_wrong_token_is_refused_and_cannot_be_guessed_quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visitors, "ATTEMPTS", 3)
    app = make_app()
    with browsing(app) as client:
        for token in ("", "wrong", TOKEN[:-1]):
            answer = client.get("/", params={"owner": token}, headers=PAGE)
            assert answer.status_code == 403 and "set-cookie" not in answer.headers
        assert client.get(f"/?owner={TOKEN}", headers=PAGE).status_code == 429
        assert not client.get("/").json()["owner"]
    answer = TestClient(make_app(LOCAL), base_url=URL).get("/?owner=x", headers=PAGE)
    assert answer.status_code == 403 and "MIXDESK_OWNER_TOKEN" in answer.text


def test_another_site_makes_nobody_the_owner() -> None:
    with browsing(make_app()) as client:
        image = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}
        assert client.get(f"/?owner={TOKEN}", headers=image).status_code == 403


def test_without_the_checks_in_front_everybody_is_the_owner() -> None:
    assert visitor_of_scope({"client": ("9.9.9.9", 1)}) == Visitor("", "9.9.9.9", True)
