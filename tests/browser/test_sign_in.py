"""Signing in with a browser: over to the provider, which is another site, and back to the page as its owner."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from app.server.access import find_access
from app.server.annotate import AnnotateRoutes
from app.server.app import Site
from app.server.configurations import Configurations
from app.server.desk_app import web_app
from app.server.guard import guarded
from app.server.sign_in import SignIn
from app.server.sign_in_options import find_sign_in
from app.services.app_state import Desk
from app.storage.database import Store
from app.ui.page import build_page
from engine import Engine
from engine.config import DEMO
from engine.listening import bind_address
from tests.app.server.oidc_provider import CLIENT, SECRET, Provider
from tests.app.storage.making_studies import StudyScene
from tests.browser.conftest import TOURED, close
from tests.browser.serving import running
from tests.conftest import Tiny

SHOTS = os.environ.get("MIXDESK_SHOTS")  # a folder for pictures, to be looked at


def shoot(page: Page, name: str) -> None:
    if SHOTS:
        page.screenshot(path=Path(SHOTS) / f"{name}.png")


class SignInPlace:
    """A hosted desk with a study, and the provider."""

    def __init__(self, tiny: Tiny, engine: Engine, provider: Provider, folder: Path) -> None:
        self.provider, self.store = provider, Store(folder / "mixdesk.db")
        self.study = StudyScene(self.store, sign_in=True)
        env = {"OAUTH_CLIENT_ID": CLIENT, "OAUTH_CLIENT_SECRET": SECRET, "OPENID_PROVIDER_URL": provider.url}
        options = find_sign_in(["ada"], env)
        assert options
        access = find_access("127.0.0.1", env={}, owners=options.owners)
        configurations = Configurations(
            [tiny.config],
            lambda config, report: Desk(engine, self.store, hosted=True, sign_in=True),
            lambda desk, menu, root: web_app(build_page(desk, menu), desk, root),
        )
        configurations.begin(Desk(engine, self.store, hosted=True, sign_in=True))
        annotating = AnnotateRoutes(self.store, sign_in=True)
        signing_in = SignIn(options, join=annotating.join_signed_in)
        self.app = guarded(Site(configurations, more=[*annotating.routes(), *signing_in.routes()]), access)
        self.close = lambda: (configurations.close(), self.store.close())


@pytest.fixture(scope="module")
def hosted(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, SignInPlace]]:
    provider = Provider()
    # An engine of its own: at the end the place closes it, and other modules still use the one that is shared.
    with Engine.from_config(DEMO) as engine, running(provider.app, grace=1) as (provider.url, _):
        place = SignInPlace(tiny, engine, provider, tmp_path_factory.mktemp("hosted"))
        with running(place.app, grace=1, listener=bind_address("127.0.0.1", 0)) as (url, _):
            # The provider is at 127.0.0.1: for a browser, another site than localhost.
            yield url.replace("127.0.0.1", "localhost"), place
        place.close()


def test_the_owner_signs_in_and_out(hosted: tuple[str, SignInPlace], browser: Browser) -> None:
    url, place = hosted
    place.provider.user = {"sub": "1", "preferred_username": "ada"}
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    context.add_init_script(TOURED)
    page = context.new_page()
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.goto(url)
    account = page.locator("#account")
    expect(account).to_have_text("Sign in")
    shoot(page, "signed-out")
    with page.expect_request(lambda request: request.url.startswith(f"{place.provider.url}/authorize")):
        account.get_by_role("link", name="Sign in").click()
    page.wait_for_url(f"{url}/")
    # The cookie, which no other site's page sends, comes with the first request after the provider's answer.
    expect(account).to_contain_text("ada")
    assert page.evaluate("fetch('login').then((answer) => answer.json())") == {"name": "ada", "owner": True}
    assert "mixdesk" not in page.evaluate("document.cookie")
    page.wait_for_function("document.body.dataset.ready")
    shoot(page, "signed-in")
    for width in (390, 320):
        page.set_viewport_size({"width": width, "height": 844})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        shoot(page, f"signed-in-{width}")
    page.set_viewport_size({"width": 1440, "height": 900})
    account.get_by_role("button", name="Sign out").click()
    expect(account).to_have_text("Sign in")
    page.wait_for_function("document.body.dataset.ready")
    close(context)
    assert not wrong


def test_an_annotator_signs_in_from_the_studys_page(hosted: tuple[str, SignInPlace], browser: Browser) -> None:
    url, place = hosted
    place.provider.user = {"sub": "2", "preferred_username": "bert"}
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{url}/annotate/{place.study.id}")
    page.locator("#sign-in").click()
    page.wait_for_url(f"{url}/annotate/{place.study.id}")
    expect(page.locator("#sign-in")).to_be_hidden()
    expect(page.locator("body")).not_to_have_attribute("data-screen", "join")
    (annotator,) = place.study.tables.annotators(place.study.id)
    assert (annotator.name, annotator.joined_by) == ("bert", "sign-in")
    context.close()
