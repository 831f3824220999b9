"""The annotators' routes: who is let in, what they are sent, and what they are not."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from app.schemas.study import StudyState
from app.server.access import find_access
from app.server.annotate import COOKIE, AnnotateRoutes
from app.server.app import Site
from app.server.desk_app import web_app
from app.server.guard import guarded
from app.server.study_downloads import FORMS, study_routes
from app.services.app_state import Desk
from app.services.visitor import visitor_of_scope
from app.storage.studies import StudyTables
from app.ui.page import build_page
from tests.app.server.guarding import OWNED, PAGE, URL
from tests.app.storage.making_studies import StudyScene, example


class Annotating:
    """A study behind the site's checks, and browsers in which people annotate."""

    def __init__(self, store, access=OWNED, root: str = "", **settings: Any) -> None:
        self.scene = StudyScene(store, **settings)
        self.routes = AnnotateRoutes(store, root)
        self.app = guarded(Starlette(routes=self.routes.routes()), access)

    @property
    def path(self) -> str:
        return f"/annotate/{self.scene.id}"

    @contextmanager
    def browser(self, url: str = URL) -> Iterator[TestClient]:
        yield TestClient(self.app, base_url=url, follow_redirects=False)

    def post(self, client: TestClient, action: str, study: str = "", **body: Any) -> Any:
        return client.post(f"/annotate/{study or self.scene.id}/{action}", json=body)

    @contextmanager
    def invited(self, name: str = "Anna") -> Iterator[TestClient]:
        """A browser that has joined by an invitation."""
        _, secret = self.scene.tables.invite(self.scene.id, name)
        with self.browser() as client:
            answer = self.post(client, "join", secret=secret)
            assert answer.status_code == 200, answer.text
            yield client


def refusal(answer: Any, status: int) -> str:
    """Return the one line of a refused request."""
    assert answer.status_code == status, answer.text
    (line,) = answer.json().values()
    assert list(answer.json()) == ["error"] and "\n" not in line and line
    return line


def test_a_study_from_invitation_to_the_end(store) -> None:
    site = Annotating(store, prompts=2, guidelines="# Be *kind*", training=[example(1, feedback="since")])
    _, secret = site.scene.tables.invite(site.scene.id, "Anna")
    with site.browser() as client:
        page = client.get(site.path, headers=PAGE)
        assert page.status_code == 200 and "text/html" in page.headers["content-type"]
        assert page.headers["cache-control"] == "no-store"
        state = site.post(client, "state").json()
        assert state["phase"] == "join" and state["annotator"] is None
        assert state["study"]["guidelines_html"] == "" and state["study"]["questions"] == []
        assert state["joining"] == {"anonymous": False, "sign_in": False}
        state = site.post(client, "join", secret=secret).json()
        assert state["phase"] == "guidelines" and state["annotator"] == {"name": "Anna"}
        assert state["study"] == {
            "name": "Soup",
            "guidelines_html": "<h1>Be <em>kind</em></h1>\n",
            "questions": [{"key": "overall", "text": "Which response is better?"}],
            "choices": ["left", "right", "tie", "both_bad"],
        }
        assert site.post(client, "next").json()["assignment"] is None
        assert site.post(client, "read").json()["phase"] == "training"
        shown = site.post(client, "next").json()
        assert shown["progress"] == {"answered": 0, "total": None, "training": {"done": 0, "total": 1, "attempt": 1}}
        trained = shown["assignment"]
        assert trained["training"] and trained["prompt"] == [{"role": "user", "content": "Example 1?"}]
        right = "left" if trained["a"] == "example 1 first" else "right"
        answer = site.post(client, "answer", assignment=trained["id"], answers={"overall": right}).json()
        assert answer["feedback"] == {"right": True, "text": "since"} and answer["phase"] == "work"
        shown = site.post(client, "next").json()["assignment"]
        site.post(client, "flag", assignment=shown["id"], comment="odd")
        body = {"assignment": shown["id"], "answers": {"overall": "tie"}, "comment": "", "seconds": 3}
        answer = site.post(client, "answer", **body).json()
        assert answer["stored"] is True and answer["feedback"] is None
        assert answer["progress"]["answered"] == 1 and answer["progress"]["total"] == 2
        undone = site.post(client, "undo").json()["assignment"]
        assert (undone["id"], undone["answers"], undone["comment"]) == (shown["id"], {"overall": "tie"}, "odd")
        site.post(client, "answer", assignment=shown["id"], answers={"overall": "left"})
        last = site.post(client, "next").json()["assignment"]
        done = site.post(client, "skip", assignment=last["id"], comment="no idea").json()
        assert done["assignment"] is None and done["phase"] == "done"
        assert sorted(site.scene.counts()) == [0, 1]
        site.scene.tables.set_state(site.scene.id, StudyState.CLOSED)
        assert site.post(client, "state").json()["phase"] == "closed"


def test_the_cookie_is_for_one_study_and_not_for_scripts(store) -> None:
    site = Annotating(store, access=find_access("127.0.0.1", root="/mix", trust_proxy=True, env={}), root="/mix")
    _, secret = site.scene.tables.invite(site.scene.id, "Anna")
    with site.browser() as client:
        answer = client.post(f"{site.path}/join", json={"secret": secret}, headers={"X-Forwarded-Proto": "https"})
        (cookie,) = (value for value in answer.headers.get_list("set-cookie") if value.startswith(COOKIE))
        parts = {part.strip().lower() for part in cookie.split(";")[1:]}
        assert {"httponly", "samesite=strict", "secure", f"path=/mix{site.path}".lower()} <= parts
        assert secret not in cookie
        assert cookie.split(";")[0].partition("=")[2] not in str(site.scene.rows(table="study_sessions"))
        # Who is in and joins again by the same link keeps the cookie.
        session = cookie.split(";")[0].partition("=")[2]
        client.cookies.set(COOKIE, session)
        again = site.post(client, "join", secret=secret)
        assert again.status_code == 200 and "set-cookie" not in again.headers


def test_another_invitation_makes_the_browser_anothers(store) -> None:
    site = Annotating(store)
    _, other = site.scene.tables.invite(site.scene.id, "Bert")
    with site.invited("Anna") as client:
        assert site.post(client, "join").json()["annotator"] == {"name": "Anna"}
        assert site.post(client, "join", secret=other).json()["annotator"] == {"name": "Bert"}
        assert site.post(client, "state").json()["annotator"] == {"name": "Bert"}


def test_nobody_joins_without_an_invitation_unless_all_may(store) -> None:
    site, free = Annotating(store), Annotating(store, anonymous=True)
    with site.browser() as client:
        assert "invited people only" in refusal(site.post(client, "join", name="Eve"), 400)
        for action in ("read", "next", "undo", "answer", "skip", "flag"):
            body = {"assignment": "x", "answers": {"overall": "left"}} if action in ("answer", "skip", "flag") else {}
            assert "have not joined" in refusal(site.post(client, action, **body), 401)
    with free.browser() as client:
        assert free.post(client, "join", name="=cmd()<b>").json()["annotator"] == {"name": "=cmd()<b>"}
        assert free.post(client, "next").json()["assignment"]
    with free.browser() as client:
        assert free.post(client, "join").json()["annotator"] == {"name": ""}
    assert len(free.scene.tables.annotators(free.scene.id)) == 2


def test_guesses_of_secrets_are_slowed(store) -> None:
    site = Annotating(store)
    _, secret = site.scene.tables.invite(site.scene.id, "Anna")
    with site.browser() as client:
        for i in range(10):
            assert "not valid" in refusal(site.post(client, "join", secret=f"guess-{i}"), 403)
        answer = site.post(client, "join", secret=secret)
        assert "try again in a minute" in refusal(answer, 429), "the right one is found at any speed"
        assert answer.headers["retry-after"] == "60"
    with site.browser() as client:
        for i in range(60):
            client.cookies.set(COOKIE, f"guess-{i}")
            assert site.post(client, "state").json()["phase"] == "join"
        assert refusal(site.post(client, "state"), 429)


def test_unknown_studies_and_drafts_look_the_same(store) -> None:
    site = Annotating(store)
    draft = StudyScene(store, state=StudyState.DRAFT, name="Secret plans")
    with site.invited() as client:
        pages = {client.get(f"/annotate/{study}", headers=PAGE).text for study in ("nowhere", draft.id)}
        assert len(pages) == 1 and "There is no such study here" in pages.pop()
        for study in ("nowhere", draft.id):
            assert client.get(f"/annotate/{study}", headers=PAGE).status_code == 404
            for action in ("state", "join", "next"):
                assert "no such study" in refusal(site.post(client, action, study), 404)
        assert "nothing at this address" in refusal(site.post(client, "settings"), 404)
        assert client.get(f"{site.path}/state").status_code == 405


def test_one_annotators_pair_is_not_anothers(store) -> None:
    site = Annotating(store, prompts=5)
    with site.invited("Anna") as anna, site.invited("Bert") as bert:
        pair = site.post(anna, "next").json()["assignment"]["id"]
        for action in ("answer", "skip", "flag"):
            body = {"assignment": pair, "answers": {"overall": "left"}}
            assert "not given to you" in refusal(site.post(bert, action, **body), 400)
        assert "no answer to undo" in refusal(site.post(bert, "undo"), 409)
    assert site.scene.counts() == [0] * 5


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b"{",
        b'"text"',
        b'{"assignment": 5}',
        b"{}",
        b'{"assignment": "x", "answers": {"overall": 1}}',
        b'{"assignment": "x", "answers": ["overall"]}',
        b'{"assignment": "x", "answers": {"overall": "left"}, "seconds": NaN}',
        b'{"assignment": "x", "answers": {"overall": "left"}, "comment": "\\ud800"}',
        b'{"assignment": "x", "answers": {"overall": "left"}, "flagged": "yes"}',
        b'{"assignment": "' + b"x" * 400 + b'", "answers": {}}',
        b"[" * 100_000,
        b"\xff\xfe",
    ],
)
def test_odd_bodies_are_refused_in_one_line(store, body: bytes) -> None:
    site = Annotating(store)
    with site.invited() as client:
        refusal(client.post(f"{site.path}/answer", content=body), 400)


def test_a_client_that_leaves_is_no_error(store) -> None:
    """The connection breaks off in the middle of the body: nothing is done, and nothing is raised."""
    site = Annotating(store)
    messages = iter([{"type": "http.request", "body": b'{"assign', "more_body": True}, {"type": "http.disconnect"}])
    sent: list[Any] = []

    async def receive() -> Any:
        return next(messages)

    async def send(message: Any) -> None:
        sent.append(message)

    path = f"{site.path}/answer"
    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(b"host", b"127.0.0.1:7860")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 7860),
        "scheme": "http",
        "http_version": "1.1",
        "root_path": "",
        "asgi": {"version": "3.0"},
    }
    asyncio.run(site.app(scope, receive, send))
    assert site.scene.rows() == []


def test_other_sites_and_names_are_refused(store) -> None:
    site = Annotating(store)
    with site.invited() as client:
        for headers in ({"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
            assert client.post(f"{site.path}/state", json={}, headers=headers).status_code == 403
        assert client.post(f"{site.path}/state", json={}, headers={"Host": "evil.example"}).status_code == 421
        assert client.post(f"{site.path}/answer", content=b" " * 2_000_000).status_code == 413


def test_a_full_disk_is_said_to_be_the_reason(store, monkeypatch: pytest.MonkeyPatch) -> None:
    site = Annotating(store)
    with site.invited() as client:
        store.path.rename(store.path.with_name("moved.db"))
        answer = site.post(client, "next")
        assert "deleted, moved or replaced" in refusal(answer, 503) and answer.headers["retry-after"]
        assert client.get(site.path, headers=PAGE).status_code == 503


# ----------------------------------------------------------------------------------------------------- what is not sent


def test_nothing_of_the_researchers_is_sent(store) -> None:
    """All bodies of a whole study are searched for what names a system, weights, seeds, kinds or the configuration."""
    site = Annotating(
        store,
        prompts=12,
        systems=3,
        seed=7_654_321,
        gold=[example(100 + i) for i in range(4)],
        gold_every=3,
        repeat_every=4,
        training=[example(1)],
        training_share=0,
    )
    bodies: list[str] = []
    shapes: set[str] = set()
    with site.invited() as client:
        client.event_hooks["response"].append(lambda response: bodies.append(response.read().decode()))
        bodies.append(client.get(site.path, headers=PAGE).text)
        site.post(client, "state")
        while assignment := site.post(client, "next").json()["assignment"]:
            shapes.add(json.dumps({key: type(value).__name__ for key, value in assignment.items()}))
            site.post(client, "flag", assignment=assignment["id"], comment="c")
            site.post(client, "answer", assignment=assignment["id"], answers={"overall": "left"})
        site.post(client, "undo")
    kinds = {row["kind"] for row in site.scene.rows()}
    assert kinds == {"pair", "gold", "repeat", "training"}, "not all kinds were given out"
    assert len(shapes) == 1
    everything = "\n".join(bodies)
    rows = [*site.scene.rows(table="study_items"), *site.scene.rows(table="mixtures")]
    names = {
        "Mix 0",
        "Mix 1",
        "Mix 2",
        "helpful",
        "terse",
        "7654321",
        "demo",
        "prompts.txt",
        "gold",
        "repeat",
        "swapped",
    }
    names |= {row["id"] for row in rows if isinstance(row["id"], str)} | {"probability", "weights", "0.25", "0.35"}
    assert [name for name in names if name in everything] == []
    assert "0 by" in everything and "example 10" in everything, "the bodies were not read"


def test_names_comments_and_guidelines_do_nothing(store) -> None:
    attack = "<img src=x onerror=alert(1)>"
    site = Annotating(
        store,
        name=f"{attack}",
        guidelines=f"{attack}\n\n<script>alert(1)</script>\n\n[a](javascript:alert(1)) ![b](http://x/y.png) [c](http://x/)\n",
    )
    with site.invited(attack) as client:
        page = client.get(site.path, headers=PAGE).text
        assert attack not in page
        answer = site.post(client, "state")
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["x-content-type-options"] == "nosniff"
        html = answer.json()["study"]["guidelines_html"]
        assert "<img" not in html and "<script" not in html and 'href="javascript' not in html
        assert '<a href="http://x/" rel="noopener noreferrer nofollow" target="_blank">c</a>' in html
        assert answer.json()["annotator"] == {"name": attack}


# -------------------------------------------------------------------------------------------- what a link does not open


def test_a_link_makes_nobody_an_owner(store) -> None:
    """With an annotator's cookie a visitor is a visitor as without it."""
    site = Annotating(store)
    with site.invited() as client:
        session = client.cookies[COOKIE]
    seen: list[bool] = []

    async def show(request: Any) -> PlainTextResponse:
        seen.append(visitor_of_scope(request.scope).owner)
        return PlainTextResponse("ok")

    client = TestClient(guarded(Starlette(routes=[Route("/", show)]), OWNED), base_url=URL)
    client.get("/", headers={"Cookie": f"{COOKIE}={session}; mixdesk_owner={session}; mixdesk_browser={session[:22]}"})
    client.get("/?owner=" + session, headers={"Cookie": f"{COOKIE}={session}"})
    assert seen == [False]


LASTING = ("/heartbeat/1", "/queue/data", "/upload_progress")  # requests that last as long as a page is open


def every_route(routes: Any, prefix: str = "") -> Iterator[tuple[str, set[str]]]:
    """Yield (path, methods) of all routes, those of mounted applications and included routers, too."""
    for route in routes:
        path = prefix + getattr(route, "path", "").rstrip("/")
        inner = getattr(route, "routes", None) or getattr(getattr(route, "app", None), "routes", None)
        if inner:
            yield from every_route(inner, path)
        else:
            yield path or "/", set(getattr(route, "methods", None) or {"GET"})


def test_an_annotators_cookie_opens_nothing_of_the_owners(store, tiny_engine) -> None:
    """Every route of the site and of a desk answers a browser with the cookie as it answers one without it."""
    desk = Desk(tiny_engine, store)
    site = Annotating(store, prompts=3)
    with site.invited() as client:
        session = client.cookies[COOKIE]
        site.post(client, "next")
    page = web_app(build_page(desk), desk)
    loaded = SimpleNamespace(page=SimpleNamespace(app=page))
    scene: Any = SimpleNamespace(all={}, fetching=SimpleNamespace(all={}, missing=str), first=loaded)
    routes = [*study_routes(store), *site.routes.routes()]
    whole = guarded(Site(scene, "", routes), OWNED)
    study = site.scene.id
    values = {"study": study, "form": "csv", "slug": "two", "run": "1", "action": "state", "name": "x", "version": "1"}
    tried, refused = 0, 0
    for template, methods in every_route([*routes, *Site(scene).own.routes, *page.routes]):
        path = re.sub(r"\{(\w+)(?::\w+)?\}", lambda found: values.get(found[1], "1"), template)
        if path.startswith("/annotate/") or path.endswith(LASTING):
            continue
        for method in sorted(methods - {"HEAD"}):
            answers = []
            for cookie in ("", f"{COOKIE}={session}"):
                browser = TestClient(whole, base_url=URL, follow_redirects=False, raise_server_exceptions=False)
                answer = browser.request(method, path, headers={"Cookie": cookie}, content=b"{}")
                answers.append((answer.status_code, answer.text if answer.status_code >= 400 else ""))
            assert answers[0] == answers[1], f"{method} {path}"
            tried += 1
            refused += answers[1][0] >= 400
    assert tried > 30 and refused > 10, (tried, refused)
    for form in FORMS:
        answer = TestClient(whole, base_url=URL).get(
            f"/studies/{study}.{form}", headers={"Cookie": f"{COOKIE}={session}"}
        )
        assert answer.status_code == 403, form


def test_requests_of_one_annotator_are_limited(store, monkeypatch: pytest.MonkeyPatch) -> None:
    site = Annotating(store)
    site.routes.requests.most = 3
    with site.invited("Anna") as anna, site.invited("Bert") as bert:
        assert [site.post(anna, "state").status_code for _ in range(5)] == [200, 200, 200, 429, 429]
        assert site.post(bert, "state").status_code == 200
    assert StudyTables(store).listing()
