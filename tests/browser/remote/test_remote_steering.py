"""tests/browser/test_steering.py with an engine behind HTTP."""

from tests.browser.test_steering import *  # noqa: F403
