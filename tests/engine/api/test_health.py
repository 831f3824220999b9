"""Health checks say whether requests are taken, and metrics what an engine has done, as Prometheus reads it."""

from __future__ import annotations

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text
from starlette.applications import Starlette
from starlette.testclient import TestClient

from engine import Engine, Sampling
from engine.api.health import health_routes
from engine.api.keys import ApiKeys
from engine.api.metrics import metrics_routes
from engine.api.source import FixedEngines


def client_of(source: FixedEngines, keys: str = "", address: str = "127.0.0.1") -> TestClient:
    routes = [*health_routes(source), *metrics_routes(source, ApiKeys.read(keys))]
    return TestClient(Starlette(routes=routes), base_url="http://127.0.0.1:8000", client=(address, 1))


def test_ready_is_while_every_engine_runs(tiny) -> None:
    engines: dict[str, Engine] = {}
    client = client_of(FixedEngines(engines))
    assert client.get("/healthz").text == "ok\n"
    answer = client.get("/readyz")
    assert answer.status_code == 503 and answer.headers["retry-after"] == "1"
    assert answer.json() == {"ready": False, "engines": {}}
    with Engine.from_config(tiny.config) as engine:
        engines["tiny"] = engine
        answer = client.get("/readyz")
        assert answer.status_code == 200 and answer.json() == {"ready": True, "engines": {"tiny": "ready"}}
    answer = client.get("/readyz")
    assert answer.status_code == 503 and answer.json() == {"ready": False, "engines": {"tiny": "closed"}}
    assert client.get("/healthz").status_code == 200


@pytest.mark.parametrize(
    ("accept", "read"), [("text/plain", read_text), ("application/openmetrics-text; version=1.0.0", read_openmetrics)]
)
def test_metrics_are_what_the_engine_has_done(tiny, accept: str, read) -> None:
    with Engine.from_config(tiny.config) as engine:
        made = [engine.generate("mix", seed=seed, max_new_tokens=4) for seed in range(3)]
        client = client_of(FixedEngines({"tiny": engine, 'a "quoted"\\name': engine}))
        answer = client.get("/metrics", headers={"Accept": accept})
        assert answer.status_code == 200 and answer.headers["content-type"].startswith(accept.partition(";")[0])
        samples = {
            (sample.name, *(label for name, label in sorted(sample.labels.items()) if name != "configuration")): sample
            for family in read(answer.text)
            for sample in family.samples
            if sample.labels.get("configuration") == "tiny"
        }
        value = {key: sample.value for key, sample in samples.items()}
        tokens = sum(len(completion.tokens) for completion in made)
        assert value["mixdesk_tokens_total",] == tokens
        assert value["mixdesk_step_seconds_count",] == tokens
        assert value["mixdesk_step_seconds_bucket", "+Inf"] == tokens
        assert value["mixdesk_first_token_seconds_count",] == 3
        assert value["mixdesk_rows",] == value["mixdesk_queue_length",] == 0
        assert value["mixdesk_max_rows",] == engine.max_rows
        assert value["mixdesk_alive",] == 1 and value["mixdesk_restarts_total",] == 0
        ended = {reason: sum(one.finish_reason == reason for one in made) for reason in ("end", "length", "stopped")}
        assert {reason: value["mixdesk_responses_total", reason] for reason in ended} == ended
        assert {kind: value["mixdesk_errors_total", kind] for kind in ("response", "step", "out_of_memory")} == {
            "response": 0, "step": 0, "out_of_memory": 0
        }  # fmt: skip
        quoted = [line for line in answer.text.splitlines() if line.startswith("mixdesk_rows{") and "quoted" in line]
        assert len(quoted) == 1


def test_metrics_show_what_waits(tiny) -> None:
    with Engine.from_config(tiny.config) as engine:
        requests = [engine.submit("mix", engine.mixture(), Sampling(max_new_tokens=200)) for _ in range(3)]
        shown = client_of(FixedEngines({"tiny": engine})).get("/metrics").text
        for request in requests:
            request.cancel()
        assert 'mixdesk_queue_length{configuration="tiny"}' in shown and 'mixdesk_rows{configuration="tiny"}' in shown


def test_metrics_need_a_key_where_there_are_keys_and_a_local_program_else() -> None:
    key = "a-key-of-this-server"
    for keys, address, header, status in (
        ("", "127.0.0.1", "", 200),
        ("", "203.0.113.5", "", 401),
        (key, "127.0.0.1", "", 401),
        (key, "203.0.113.5", f"Bearer {key}", 200),
        (key, "203.0.113.5", "Bearer another-key-of-it", 401),
    ):
        client = client_of(FixedEngines({}), keys, address)
        assert client.get("/metrics", headers={"Authorization": header}).status_code == status
        assert client.get("/healthz").status_code == 200 and client.get("/readyz").status_code == 503
