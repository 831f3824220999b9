"""The desk of `python -m app --engine`, for the same tests as the desk with an engine of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from app.services.app_state import Desk
from engine import Engine
from engine.remote import RemoteEngine
from engine.remote.routes import EngineRoutes
from tests.browser.serving import Server, running_app, served
from tests.engine.remote.serving import serving


@pytest.fixture(scope="package")
def address() -> Iterator[str]:
    """Where the bundled policies answer; not those of the fixture `engine`, which a module here replaces."""
    with Engine.from_config() as local, serving(EngineRoutes(local).routes()) as url:
        yield url


@pytest.fixture(scope="package")
def remote(address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        with RemoteEngine(address) as remote:
            yield remote


@pytest.fixture(scope="package")
def server(address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    db = tmp_path_factory.mktemp("app") / "mixdesk.db"
    with running_app(db, "--engine", address) as url:
        yield Server(url, db)


@pytest.fixture(scope="module")
def place(remote: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Desk]]:
    with served(remote, tmp_path_factory.mktemp("place") / "mixdesk.db") as place:
        yield place
