"""The annotators' page as it is served: every file that it names, a strict policy, and names as text."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from app.server.access import Access
from app.server.annotate_page import (
    FOLDER,
    MEDIA_TYPES,
    annotate_asset_route,
    annotate_notice,
    annotate_shell,
    assets_version,
    load_assets,
)
from app.server.security_headers import SecurityHeaders


@pytest.fixture
def browser() -> TestClient:
    return TestClient(Starlette(routes=[annotate_asset_route()]))


class Addresses(HTMLParser):
    """The addresses of what a page loads, and what a strict policy refuses in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.refused: list[str] = []
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        given = dict(attrs)
        self.loaded += [given[name] or "" for name in ("src", "href") if name in given and tag in ("script", "link")]
        inline = tag == "style" or (tag == "script" and "src" not in given)
        self.refused += [tag] if inline else []
        self.refused += [name for name in given if name == "style" or name.startswith("on")]


def test_every_file_that_the_page_names_is_served(browser: TestClient) -> None:
    page = Addresses(annotate_shell("Tents").body.decode())
    assert len(page.loaded) == len(set(page.loaded)) + 1  # main.js is preloaded and run
    names = {address.removeprefix(f"static/{assets_version()}/") for address in page.loaded}
    assert names == set(load_assets())
    for name in names:
        answer = browser.get(f"/annotate/static/{assets_version()}/{name}")
        assert answer.content == (FOLDER / name).read_bytes()
        assert answer.headers["content-type"].startswith(MEDIA_TYPES[Path(name).suffix])
        assert "immutable" in answer.headers["cache-control"]


def test_every_import_names_a_file() -> None:
    assets = load_assets()
    imports = 0
    for name, content in assets.items():
        for target in re.findall(r'^import .* from "(.*)";$', content.decode(), flags=re.MULTILINE):
            imports += 1
            assert target.startswith("."), f"{name} imports {target}"
            assert (Path("/", name).parent / target).resolve().relative_to("/").as_posix() in assets, (
                f"{name}: {target}"
            )
    assert imports > 10


def test_another_version_a_template_and_a_path_upward_are_not_found(browser: TestClient) -> None:
    for path in ("0123456789abcdef/main.js", f"{assets_version()}/index.html", f"{assets_version()}/%2e%2e/js/main.js"):
        assert browser.get(f"/annotate/static/{path}").status_code == 404


@pytest.mark.parametrize("page", [annotate_shell("A"), annotate_notice("No such study", "Check the link.", 404)])
def test_nothing_on_the_page_is_inline(page) -> None:
    assert not Addresses(page.body.decode()).refused
    policy = dict(part.split(" ", 1) for part in page.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'" and policy["frame-ancestors"] == "'none'"
    assert {source for value in policy.values() for source in value.split()} == {"'self'", "'none'"}
    assert page.headers["cache-control"] == "no-store"


def test_an_inline_script_would_be_found() -> None:
    assert Addresses('<script>1</script><p style="x" onclick="y">').refused == ["script", "style", "onclick"]


def test_names_are_text() -> None:
    name = "<script>alert(1)</script> $folder {{7*7}} \"'"
    for page in (annotate_shell(name), annotate_notice(name, name, 404)):
        text = page.body.decode()
        assert "<script>alert" not in text and "&lt;script&gt;alert(1)" in text and "$folder {{7*7}}" in text
    assert Addresses(annotate_shell(name).body.decode()).tags == Addresses(annotate_shell("A").body.decode()).tags


def test_the_site_keeps_the_page_s_own_policy() -> None:
    page = annotate_shell("Tents")
    site = TestClient(SecurityHeaders(page, Access()))
    headers = site.get("/annotate/abc").headers
    assert headers.get_list("content-security-policy") == [page.headers["content-security-policy"]]
    assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "same-origin"
    # Not where an uploaded file brings one.
    assert "sandbox" in site.get("/gradio_api/file=x").headers["content-security-policy"]
