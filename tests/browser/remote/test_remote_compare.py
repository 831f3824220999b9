"""tests/browser/test_compare.py with an engine behind HTTP."""

from __future__ import annotations

import pytest

from engine import Engine
from tests.browser.test_compare import *  # noqa: F403


@pytest.fixture
def engine(remote: Engine) -> Engine:
    return remote
