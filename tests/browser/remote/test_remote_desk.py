"""tests/browser/test_desk.py with an engine behind HTTP."""

from tests.browser.test_desk import *  # noqa: F403
