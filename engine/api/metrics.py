"""The metrics of the engines for Prometheus: /metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from engine.api.keys import ApiKeys
from engine.api.source import EngineSource
from engine.inference.engine import Engine
from engine.inference.finish_reason import FinishReason
from engine.inference.telemetry import Histogram, Telemetry

LABEL = "configuration"
GAUGES: dict[str, tuple[str, Callable[[Engine], float]]] = {
    "mixdesk_alive": ("1 if the engine takes requests, 0 if it is closed.", lambda engine: engine.telemetry.alive),
    "mixdesk_queue_length": ("Requests that wait to be admitted.", lambda engine: engine.waiting),
    "mixdesk_rows": ("Rows, one for each sequence and policy, that are being decoded.", lambda engine: engine.rows),
    "mixdesk_max_rows": ("The most rows that are decoded together.", lambda engine: engine.max_rows),
}
COUNTERS: dict[str, tuple[str, Callable[[Telemetry], float]]] = {
    "mixdesk_tokens": ("Tokens drawn, those of all particles included.", lambda kept: kept.tokens),
    "mixdesk_restarts": ("Times that the worker recovered from an unexpected error.", lambda kept: kept.restarts),
}
HISTOGRAMS: dict[str, tuple[str, Callable[[Telemetry], Histogram]]] = {
    "mixdesk_step_seconds": ("Duration of a step: a token for each sequence.", lambda kept: kept.step_seconds),
    "mixdesk_first_token_seconds": (
        "From the submission of a response to its first token that can be read.",
        lambda kept: kept.first_token_seconds,
    ),
}


class EngineCollector(Collector):
    """Reads the metrics of the engines that are loaded, whenever they are asked for."""

    def __init__(self, source: EngineSource) -> None:
        self.source = source

    def collect(self) -> Iterator[Metric]:
        """Yield the metric families, each with one series, or several, for a configuration."""
        engines = dict(self.source.engines())
        for name, (text, gauge) in GAUGES.items():
            gauges = GaugeMetricFamily(name, text, labels=[LABEL])
            for configuration, engine in engines.items():
                gauges.add_metric([configuration], gauge(engine))
            yield gauges
        for name, (text, counter) in COUNTERS.items():
            counters = CounterMetricFamily(name, text, labels=[LABEL])
            for configuration, engine in engines.items():
                counters.add_metric([configuration], counter(engine.telemetry))
            yield counters
        responses = CounterMetricFamily("mixdesk_responses", "Responses that ended.", labels=[LABEL, "finish_reason"])
        errors = CounterMetricFamily("mixdesk_errors", "Failures by their kind.", labels=[LABEL, "kind"])
        for configuration, engine in engines.items():
            kept = engine.telemetry
            for reason in FinishReason:
                responses.add_metric([configuration, reason.value], kept.responses[reason])
            kinds = {
                "response": kept.responses[FinishReason.ERROR],
                "step": kept.failed_steps,
                "out_of_memory": kept.out_of_memory,
            }
            for kind, count in kinds.items():
                errors.add_metric([configuration, kind], count)
        yield responses
        yield errors
        for name, (text, histogram) in HISTOGRAMS.items():
            histograms = HistogramMetricFamily(name, text, labels=[LABEL])
            for configuration, engine in engines.items():
                values = histogram(engine.telemetry)
                bounds = [*map(str, values.bounds), "+Inf"]
                buckets = list(zip(bounds, values.cumulative(), strict=True))
                histograms.add_metric([configuration], buckets, values.sum)
            yield histograms


def metrics_routes(
    source: EngineSource, keys: ApiKeys, is_owner: Callable[[Request], bool] = lambda _: False
) -> list[Route]:
    """Return the route /metrics.

    Args:
        source: the engines.
        keys: those with which, or without which, a program may read them.
        is_owner: whether a request is the owner's, who may read them too.
    """
    registry = CollectorRegistry()
    registry.register(EngineCollector(source))
    ProcessCollector(registry=registry)  # memory, processor time, open files

    async def metrics(request: Request) -> Response:
        if not is_owner(request) and (refusal := keys.refusal(request)):
            return refusal
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        # Aside: an engine's queue may be held for a moment, and files of the operating system are read.
        body = await asyncio.to_thread(encode, registry)
        return PlainTextResponse(body, headers={"Content-Type": content_type, "Cache-Control": "no-store"})

    return [Route("/metrics", metrics)]
