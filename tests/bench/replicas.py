"""Tokens a second of two replicas on Ray beside those of one. Needs Ray: pip install 'mixdesk[scale]'.

    python tests/bench/replicas.py [--responses 64] [--tokens 80] [--rounds 3]

They take turns, twice each, since two deployments at once would share the CPUs. Each replica has one CPU.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

from engine import Sampling
from engine.config import DEMO
from engine.remote import RemoteEngine
from engine.scale.cluster import Cluster
from engine.scale.engine import ScaledEngine
from engine.scale.options import Replicas

PROMPT = "How do I boil an egg?"


def tokens_per_second(engine: RemoteEngine, responses: int, tokens: int) -> float:
    """Return the tokens a second of so many responses, asked for at once."""
    began, mixture = time.perf_counter(), engine.mixture()
    sampling = Sampling(max_new_tokens=tokens, temperature=2.0)
    requests = [engine.submit(PROMPT, mixture, sampling, seed, rewards=False) for seed in range(responses)]
    drawn = sum(len(request.completion().tokens) for request in requests)
    return drawn / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--responses", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=80)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    found: dict[int, list[float]] = {1: [], 2: []}
    for count in (1, 2, 1, 2):
        with Cluster([DEMO], Replicas.read(str(count))) as cluster, ScaledEngine(cluster, DEMO) as engine:
            tokens_per_second(engine, 8, options.tokens)  # warm
            for _ in range(options.rounds):
                found[count].append(tokens_per_second(engine, options.responses, options.tokens))
    medians = {count: statistics.median(values) for count, values in found.items()}
    print(json.dumps({"tokens_per_second": medians, "two_by_one": medians[2] / medians[1]}))


if __name__ == "__main__":
    main()
