"""What a browser is told about a desk's pages."""

from __future__ import annotations

import re

import pytest
from starlette.testclient import TestClient

from app.server.access import find_access
from app.services.app_state import Desk
from engine import Engine
from tests.app.server.guarding import LOCAL, PAGE, URL, app_of

SPACE = find_access("127.0.0.1", env={"SPACE_ID": "me/desk", "SPACE_HOST": "me-desk.hf.space"})


@pytest.mark.parametrize(("access", "ancestors"), [(LOCAL, "'self'"), (SPACE, "'self' https://huggingface.co")])
def test_headers(access, ancestors: str, store, tiny_engine: Engine) -> None:
    client = TestClient(app_of(Desk(tiny_engine, store), access), base_url=URL)
    for path in ("/", "/config", "/nothing"):
        headers = client.get(path, headers=PAGE).headers
        policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
        assert policy["frame-ancestors"] == ancestors
        # Nothing comes from other hosts: no source is one, or a whole scheme of them.
        sources = {source for name, value in policy.items() if name != "frame-ancestors" for source in value.split()}
        assert sources <= {"'self'", "'none'", "'unsafe-inline'", "'unsafe-eval'", "data:", "blob:"}
        assert policy["connect-src"] == "'self'" and "data:" not in policy["script-src"]
        assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "same-origin"
    # The headers that other answers have are kept, each once.
    assert len(re.findall("content-security-policy", str(headers))) == 1


def test_an_uploaded_file_is_no_page(store, tiny_engine: Engine) -> None:
    client = TestClient(app_of(Desk(tiny_engine, store)), base_url=URL)
    (path,) = client.post("/gradio_api/upload", files={"files": ("a.html", b"<script>alert(1)</script>")}).json()
    answer = client.get(f"/gradio_api/file={path}")
    assert answer.status_code == 200 and "sandbox" in answer.headers["content-security-policy"]
