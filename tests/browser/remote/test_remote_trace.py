"""tests/browser/test_trace.py with an engine behind HTTP."""

from tests.browser.test_trace import *  # noqa: F403
