"""People sign in through a real provider on this machine: owners own the desk, and nothing else gets in."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from joserfc.jwk import RSAKey
from starlette.testclient import TestClient

from app.schemas.study import StudyState
from app.server import sign_in
from app.server.access import Access, find_access
from app.server.annotate import AnnotateRoutes
from app.server.app import Site
from app.server.guard import guarded
from app.server.sign_in import SignIn
from app.server.sign_in_options import SignInOptions, find_sign_in
from engine import InputError
from tests.app.server.guarding import PAGE, URL
from tests.app.server.oidc_provider import CLIENT, SECRET, Provider
from tests.app.server.test_configurations import Scene
from tests.app.storage.making_studies import StudyScene
from tests.browser.serving import running

FROM_PROVIDER = {**PAGE, "Sec-Fetch-Site": "cross-site"}


@pytest.fixture(scope="module")
def listening() -> Iterator[Provider]:
    provider = Provider()
    with running(provider.app, grace=1) as (provider.url, _):
        yield provider


@pytest.fixture
def provider(listening: Provider) -> Provider:
    listening.user, listening.claims, listening.in_userinfo = {"sub": "1815", "preferred_username": "ada"}, {}, False
    listening.signing = listening.key
    return listening


def options(provider: Provider | str, **env: str) -> SignInOptions:
    url = provider if isinstance(provider, str) else provider.url
    known = {"OAUTH_CLIENT_ID": CLIENT, "OAUTH_CLIENT_SECRET": SECRET, "OPENID_PROVIDER_URL": url}
    found = find_sign_in(["ada"], {**known, **env})
    assert found is not None
    return found


def access_of(found: SignInOptions, **settings: Any) -> Access:
    return find_access("127.0.0.1", env={}, owners=found.owners, **settings)


@pytest.fixture
def serve(tiny, store):
    def app_of(found: SignInOptions, access: Access | None = None, root: str = "") -> Any:
        scene = Scene(tiny, store)
        return guarded(Site(scene.configurations, root, SignIn(found, root).routes()), access or access_of(found))

    return app_of


@contextmanager
def opened(app: Any, url: str = URL) -> Iterator[TestClient]:
    with TestClient(app, base_url=url, follow_redirects=False) as client:
        client.get("/", headers=PAGE)
        yield client


def to_provider(client: TestClient, path: str = "/", prefix: str = "") -> str:
    """The address to which the provider sends the browser back, with a code and the state."""
    answer = client.get(f"{prefix}/login/huggingface", params={"next": path}, headers=PAGE)
    assert answer.status_code == 302, answer.text
    back = httpx.get(answer.headers["location"])
    assert back.status_code == 302, back.text
    return back.headers["location"]


def come_back(client: TestClient, address: str) -> httpx.Response:
    return client.get(f"{urlsplit(address).path}?{urlsplit(address).query}", headers=FROM_PROVIDER)


def signed_in(client: TestClient, path: str = "/") -> httpx.Response:
    return come_back(client, to_provider(client, path))


def may_load(client: TestClient) -> bool:
    answer = client.post("/configurations/two")
    assert answer.status_code in (200, 403)
    return answer.status_code == 200


# --------------------------------------------------------------------------------------------------------- who gets in


def test_an_owner_signs_in_and_may_load_configurations(serve, provider: Provider) -> None:
    with opened(serve(options(provider))) as client:
        assert client.get("/login").json() == {"name": None, "owner": False} and not may_load(client)
        answer = signed_in(client, "/desk/two/?__theme=dark")
        assert answer.status_code == 200 and 'content="0;url=../desk/two/?__theme=dark"' in answer.text
        assert client.get("/login").json() == {"name": "ada", "owner": True} and may_load(client)


def test_another_user_signs_in_and_is_not_the_owner(serve, provider: Provider) -> None:
    for user in ("bert", "Ada", "ada2", "<b>ada</b>"):
        provider.user = {"sub": "7", "preferred_username": user}
        with opened(serve(options(provider))) as client:
            answer = signed_in(client)
            assert answer.status_code == 200 and "<b>ada" not in answer.text
            assert client.get("/login").json() == {"name": user, "owner": False} and not may_load(client)


def test_the_name_may_be_in_the_userinfo_alone(serve, provider: Provider) -> None:
    provider.in_userinfo = True
    with opened(serve(options(provider))) as client:
        signed_in(client)
        assert client.get("/login").json() == {"name": "ada", "owner": True}


def test_signing_out_ends_it(serve, provider: Provider) -> None:
    with opened(serve(options(provider))) as client:
        signed_in(client)
        assert "Sign out" in client.get("/logout").text and client.get("/login").json()["owner"]
        assert client.post("/logout", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
        assert client.get("/login").json()["owner"]
        answer = client.post("/logout", headers={"Sec-Fetch-Site": "same-origin"})
        assert (answer.status_code, answer.headers["location"]) == (303, "./")
        assert client.get("/login").json() == {"name": None, "owner": False} and not may_load(client)


def test_the_cookies_are_of_one_browser_and_of_this_process(serve, provider: Provider) -> None:
    app = serve(options(provider))
    with opened(app) as client, opened(app) as other, opened(serve(options(provider))) as later:
        signed_in(client)
        for name in ("mixdesk_owner", "mixdesk_account"):
            other.cookies.set(name, client.cookies[name])
            later.cookies.set(name, client.cookies[name])
        assert other.get("/login").json() == {"name": None, "owner": False}
        later.cookies.set("mixdesk_browser", client.cookies["mixdesk_browser"])
        assert later.get("/login").json() == {"name": None, "owner": False}


def test_cookies_are_out_of_reach_of_scripts_and_other_sites(serve, provider: Provider) -> None:
    space = {"SPACE_ID": "ada/desk", "SPACE_HOST": "ada-desk.hf.space"}
    found = options(provider, **space)
    for secure, headers in ((False, {}), (True, {"X-Forwarded-Proto": "https", "Host": "ada-desk.hf.space"})):
        access = find_access("127.0.0.1", env=space if secure else {}, owners=found.owners)
        with opened(serve(found, access), "https://ada-desk.hf.space" if secure else URL) as client:
            client.headers.update(headers)
            begun = client.get("/login/huggingface", headers=PAGE)
            (session,) = begun.headers.get_list("set-cookie")
            assert session.startswith("mixdesk_sign_in=") and "Max-Age=600" in session
            assert "httponly" in session.lower() and "samesite=lax" in session.lower()
            assert ("secure" in session.lower()) is secure
            answer = come_back(client, httpx.get(begun.headers["location"]).headers["location"])
            assert answer.headers["cache-control"] == "no-store"
            made = [line.lower() for line in answer.headers.get_list("set-cookie")]
            assert sorted(line.split("=")[0] for line in made) == [
                "mixdesk_account",
                "mixdesk_owner",
                "mixdesk_sign_in",
            ]
            for line in made:
                if line.startswith("mixdesk_sign_in"):
                    assert "expires=thu, 01 jan 1970" in line  # no longer needed
                else:
                    assert "httponly" in line and "samesite=strict" in line and ("secure" in line) is secure


# ------------------------------------------------------------------------------------------------- what is refused


def test_a_wrong_state_is_refused(serve, provider: Provider) -> None:
    app = serve(options(provider))
    with opened(app) as client, opened(app) as other:
        address = to_provider(client)
        code, state = (parse_qs(urlsplit(address).query)[name][0] for name in ("code", "state"))
        theirs = come_back(other, address)  # a link that somebody else has begun
        wrong = client.get(f"/login/callback?code={code}&state={state[:-1]}x", headers=FROM_PROVIDER)
        # It was forgotten with the wrong answer.
        again = come_back(client, address)
        without = client.get("/login/callback", headers=FROM_PROVIDER)
        for answer in (theirs, wrong, again, without):
            assert answer.status_code == 403 and "was not begun in this browser" in answer.text
            assert len(answer.text.splitlines()) == 1
        for browser in (client, other):
            assert browser.get("/login").json() == {"name": None, "owner": False}


def test_an_answer_counts_once(serve, provider: Provider) -> None:
    with opened(serve(options(provider))) as client:
        address = to_provider(client)
        assert come_back(client, address).status_code == 200
        assert come_back(client, address).status_code == 403


@pytest.mark.parametrize(
    "claims",
    [{"nonce": "another"}, {"aud": "another"}, {"iss": "https://another.example"}, {"exp": 1, "iat": 0}, {"sub": ""}],
    ids=lambda claims: next(iter(claims)),
)
def test_an_id_token_that_is_not_for_this_sign_in_is_refused(serve, provider: Provider, claims: dict) -> None:
    provider.claims = claims
    with opened(serve(options(provider))) as client:
        answer = signed_in(client)
        assert answer.status_code in (403, 502) and "cannot be used" in answer.text
        assert client.get("/login").json() == {"name": None, "owner": False}


def test_an_id_token_that_another_key_has_signed_is_refused(serve, provider: Provider) -> None:
    provider.signing = RSAKey.generate_key(2048, {"kid": "one"})
    with opened(serve(options(provider))) as client:
        assert signed_in(client).status_code == 403
        assert client.get("/login").json() == {"name": None, "owner": False}


@pytest.mark.parametrize(
    "path",
    [
        "https://evil.example/", "//evil.example/", "/\\evil.example", "\\\\evil.example", "http:evil.example", "evil",
        "/..//evil.example", "/%2e%2e//evil.example", "/%5cevil.example", "/\tx", "/\n//evil.example", "",
        "javascript:alert(1)", "/ x", "/é", "/x#y", "/login/huggingface", "/logout", "/" + "x" * 2001,
    ],
)  # fmt: skip
def test_nobody_is_sent_elsewhere(serve, provider: Provider, path: str) -> None:
    with opened(serve(options(provider))) as client:
        answer = client.get("/login/huggingface", params={"next": path}, headers=PAGE)
        assert answer.status_code == 400 and answer.text.startswith("next: give a path of this site")
        assert "location" not in answer.headers


def test_what_is_in_the_path_has_no_effect_on_the_page(serve, provider: Provider) -> None:
    with opened(serve(options(provider))) as client:
        answer = signed_in(client, "/x\"><script>alert(1)</script>'")
        assert "<script>" not in answer.text and "&lt;script&gt;" in answer.text


def test_a_person_who_declines_is_told_so(serve, provider: Provider) -> None:
    with opened(serve(options(provider))) as client:
        query = "error=access_denied&error_description=<b>no</b>&state=x"
        answer = client.get(f"/login/callback?{query}", headers=FROM_PROVIDER)
        assert (
            answer.status_code == 403 and answer.text.startswith("You are not signed in") and "<b>" not in answer.text
        )


def test_a_provider_out_of_reach_is_one_line(serve, caplog) -> None:
    from tests.browser.serving import free_port

    with opened(serve(options(f"http://127.0.0.1:{free_port()}"))) as client:
        answer = client.get("/login/huggingface", headers=PAGE)
        assert (answer.status_code, answer.text) == (502, sign_in.OUT_OF_REACH)


def test_a_wrong_client_secret_is_one_line_and_nothing_secret_is_logged(serve, provider: Provider, caplog) -> None:
    caplog.set_level(logging.INFO)
    found = options(provider, OAUTH_CLIENT_SECRET="wrong-client-secret")
    with opened(serve(found)) as client:
        address = to_provider(client)
        answer = come_back(client, address)
        assert answer.status_code == 403 and answer.text == sign_in.NOT_SIGNED_IN
        query = parse_qs(urlsplit(address).query)
    with opened(serve(options(provider))) as client:
        signed_in(client)
    theirs = (
        "httpx"  # the clients of this test and of the app write the addresses that they ask, which is off by default
    )
    records = [record.getMessage() for record in caplog.records if not record.name.startswith(theirs)]
    said = "\n".join([*records, repr(found)])
    assert "invalid_client" in said
    for secret in (SECRET, "wrong-client-secret", query["code"][0], query["state"][0], *provider.tokens):
        assert secret not in said


def test_attempts_are_limited(serve, provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sign_in, "ATTEMPTS", 2)
    with opened(serve(options(provider))) as client:
        assert signed_in(client).status_code == 200
        assert client.get("/login/huggingface", headers=PAGE).status_code == 429
        assert client.get("/login/callback", headers=PAGE).status_code == 429


def test_a_client_without_cookies_cannot_sign_in(serve, provider: Provider) -> None:
    with TestClient(serve(options(provider)), base_url=URL) as client:
        answer = client.get("/login/huggingface")
        assert answer.status_code == 400 and "cookies" in answer.text


# --------------------------------------------------------------------------------------- where the answer comes to


@pytest.mark.parametrize(
    ("root", "path", "callback", "back"),
    [
        ("", "/annotate/s?a=b", f"{URL}/login/callback", "../annotate/s?a=b"),
        ("/mix", "/mix/annotate/s", f"{URL}/mix/login/callback", "../annotate/s"),
        ("/mix", "/annotate/s", f"{URL}/mix/login/callback", "../annotate/s"),
        ("https://desk.example.org/mix", "/mix/", "https://desk.example.org/mix/login/callback", "../"),
    ],
)
def test_behind_a_proxy_the_answer_comes_to_its_address(serve, provider, root, path, callback, back) -> None:
    found = options(provider)
    prefix = urlsplit(root).path
    with opened(serve(found, access_of(found, root=root), root)) as client:
        address = to_provider(client, path, prefix)
        assert provider.asked[-1] == callback and address.startswith(callback)
        assert f'url={back}"' in come_back(client, address).text


def test_a_desk_without_sign_in_has_no_such_pages(tiny, store) -> None:
    site = guarded(Site(Scene(tiny, store).configurations), find_access("127.0.0.1", env={}))
    client = TestClient(site, base_url=URL)
    for path in ("/login", "/login/huggingface", "/login/callback"):
        assert client.get(path).status_code == 404


# ------------------------------------------------------------------------------------------------------------- studies


@pytest.fixture
def annotating(store, tiny, provider: Provider):
    """Returns (app, study): a site with a study of these settings; `offered`: whether people can sign in at all."""

    def made(offered: bool = True, **settings: Any) -> tuple[Any, StudyScene]:
        study, found = StudyScene(store, **settings), options(provider)
        routes = AnnotateRoutes(store, sign_in=offered)
        more = [*routes.routes(), *SignIn(found, join=routes.join_signed_in).routes()]
        return guarded(Site(Scene(tiny, store).configurations, more=more), access_of(found)), study

    return made


def test_an_annotator_joins_by_signing_in(annotating, provider: Provider) -> None:
    app, study = annotating(sign_in=True)
    provider.user = {"sub": "7", "preferred_username": "bert"}
    path = f"/annotate/{study.id}"
    for browser in range(2):  # the same person on two devices
        with opened(app) as client:
            state = client.post(f"{path}/state").json()
            assert state["phase"] == "join" and state["joining"] == {"anonymous": False, "sign_in": True}
            answer = signed_in(client, path)
            assert answer.status_code == 200 and f"url=..{path}" in answer.text
            (cookie,) = [line for line in answer.headers.get_list("set-cookie") if line.startswith("mixdesk_annotator")]
            assert "HttpOnly" in cookie and "SameSite=strict" in cookie and f"Path={path}" in cookie
            state = client.post(f"{path}/state").json()
            assert state["annotator"] == {"name": "bert"} and state["phase"] != "join"
            if not browser:
                assert client.post(f"{path}/next").json()["assignment"]
            assert not client.get("/login").json()["owner"] and not may_load(client)
    (annotator,) = study.tables.annotators(study.id)
    assert (annotator.name, annotator.joined_by) == ("bert", "sign-in")
    (row,) = study.store.db.query("select key from study_annotators")
    assert row["key"] == "hf:7"
    # Another person of the same name is another one.
    provider.user = {"sub": "8", "preferred_username": "bert"}
    with opened(app) as client:
        signed_in(client, path)
    assert len(study.tables.annotators(study.id)) == 2


def test_signing_in_opens_no_study_that_does_not_say_so(annotating, provider: Provider) -> None:
    app, study = annotating()
    with opened(app) as client:
        for path, said in ((f"/annotate/{study.id}", "open the whole link of your invitation"), ("/annotate/none", "")):
            answer = signed_in(client, path)
            assert answer.status_code == 403 and said in answer.text and len(answer.text.splitlines()) == 1
            assert "mixdesk_annotator" not in str(answer.headers) and "mixdesk_owner" not in str(answer.headers)
        for path in ("/", "/annotate/", "/annotate/static/x/y.js", f"/annotate/{study.id}/next"):
            assert signed_in(client, path).status_code == 200  # and nobody has joined
    assert study.tables.annotators(study.id) == []


def test_a_study_offers_signing_in_only_where_that_is_configured(annotating) -> None:
    app, study = annotating(offered=False, sign_in=True)
    with opened(app) as client:
        state = client.post(f"/annotate/{study.id}/state").json()
        assert state["joining"] == {"anonymous": False, "sign_in": False}


def test_a_closed_study_is_one_line(annotating) -> None:
    app, study = annotating(sign_in=True)
    study.tables.set_state(study.id, StudyState.CLOSED)
    with opened(app) as client:
        answer = signed_in(client, f"/annotate/{study.id}")
        assert answer.status_code == 403 and "is closed" in answer.text


# ------------------------------------------------------------------------------------------------------------- options


def test_options_come_from_a_spaces_environment() -> None:
    env = {
        "SPACE_ID": "ada/desk", "SPACE_HOST": "ada-desk.hf.space", "SPACE_AUTHOR_NAME": "ada", "OAUTH_CLIENT_ID": "id",
        "OAUTH_CLIENT_SECRET": "secret", "OAUTH_SCOPES": "openid profile email",
        "OPENID_PROVIDER_URL": "https://huggingface.co/",
    }  # fmt: skip
    found = find_sign_in([], env)
    assert found and found.owners == {"ada"} and found.host == "ada-desk.hf.space"
    assert found.provider == "https://huggingface.co" and found.scopes == ("openid", "profile", "email")
    assert find_sign_in(["bert,carl", "dora"], env).owners == {"bert", "carl", "dora"}  # type: ignore[union-attr]
    del env["SPACE_ID"]
    elsewhere = find_sign_in([], env)
    assert elsewhere and not elsewhere.owners and not elsewhere.host
    assert find_sign_in([], {}) is None


@pytest.mark.parametrize(
    ("owners", "env", "said"),
    [
        (["ada"], {}, "--owner: nobody can sign in here: set OAUTH_CLIENT_ID"),
        (["ada/x"], {"OAUTH_CLIENT_ID": "i", "OAUTH_CLIENT_SECRET": "s"}, "--owner: found 'ada/x'"),
        ([], {"OAUTH_CLIENT_ID": "i"}, "OAUTH_CLIENT_SECRET: it is missing"),
        (
            [],
            {"OAUTH_CLIENT_ID": "i", "OAUTH_CLIENT_SECRET": "s", "OPENID_PROVIDER_URL": "http://example.org"},
            "OPENID_PROVIDER_URL: found 'http://example.org'; give a URL that begins with https://",
        ),
    ],
)
def test_options_that_cannot_be_used_are_refused(owners: list[str], env: dict[str, str], said: str) -> None:
    with pytest.raises(InputError) as error:
        find_sign_in(owners, env)
    assert str(error.value).startswith(said)
