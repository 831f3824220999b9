from __future__ import annotations

from engine import Engine
from tests.engine.api.hostile_requests import Report, throw


def test_no_request_breaks_the_server(tiny_engine: Engine) -> None:
    report = Report()
    throw(tiny_engine, 300, report)
    assert report.statuses[200] > 30 and report.statuses[400] > 30, report
