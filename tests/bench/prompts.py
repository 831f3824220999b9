"""What a long prompt costs: the others' tokens while it is read, and the next turn of its conversation.

    python tests/bench/prompts.py [--shape 135m] [--length 2048] [--turn 1500] [--dtype bfloat16]

A model of the shape with random weights and four policies. `gap_steps` is the longest time between two tokens of
another response while the prompt is read, in steps of that response alone. `turn_ratio` is the time to the first token
of the second turn of a conversation over that of its first turn.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import threading
import time
from itertools import pairwise
from pathlib import Path

import torch

from engine import Engine, Sampling
from engine.config import Config, PolicySettings
from engine.evaluation.bench import SHAPES, make_adapters, make_model
from engine.messages import TokenPrompt


def tokens(count: int, seed: int, vocabulary: int) -> tuple[int, ...]:
    """Return random token ids."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randint(0, vocabulary, (count,), generator=generator).tolist())


def first_token(engine: Engine, prompt: tuple[int, ...], count: int = 1) -> tuple[float, list[int]]:
    """Return the seconds to the first token of a response, and its tokens."""
    start = time.perf_counter()
    request = engine.submit(TokenPrompt(prompt), engine.mixture(), Sampling(count), rewards=False)
    next(iter(request))
    return time.perf_counter() - start, request.completion().tokens


def times_of_tokens(engine: Engine, prompt: tuple[int, ...], while_reading: tuple[int, ...]) -> list[float]:
    """Return when each token of a response came, from the moment at which another prompt is sent until it is read."""
    request = engine.submit(TokenPrompt(prompt), engine.mixture(), Sampling(2000), rewards=False)
    times, done = [], threading.Event()

    def read() -> None:
        first_token(engine, while_reading)
        done.set()

    for number, _ in enumerate(request):
        times.append(time.perf_counter())
        if number == 40:
            threading.Thread(target=read).start()
        if done.is_set():
            break
    request.cancel()
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--shape", default="135m", choices=SHAPES)
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--turn", type=int, default=1500)
    parser.add_argument("--dtype", default="bfloat16")
    options = parser.parse_args()
    vocabulary = SHAPES[options.shape][-1]
    with tempfile.TemporaryDirectory() as folder:
        base, dtype = Path(folder) / "base", getattr(torch, options.dtype)
        make_model(base, options.shape, dtype)
        make_adapters(base, Path(folder), 4, dtype)
        policies = [PolicySettings(name=f"p{i}", objective=f"o{i}", adapter=f"{folder}/p{i}") for i in range(4)]
        config = Config(name="bench", base=str(base), dtype=options.dtype, policies=policies)  # type: ignore[arg-type]
        with Engine(config) as engine:
            first_token(engine, tokens(40, 0, vocabulary), 30)
            times = times_of_tokens(engine, tokens(40, 1, vocabulary), tokens(options.length, 2, vocabulary))
            gaps = [later - earlier for earlier, later in pairwise(times)]
            step, worst = statistics.median(gaps[10:40]), max(gaps[40:])
            conversation = tokens(options.turn, 3, vocabulary)
            first, said = first_token(engine, conversation, 60)
            second, _ = first_token(engine, conversation + tuple(said) + tokens(40, 4, vocabulary))
    print(
        json.dumps(
            {
                "step_ms": round(step * 1000, 1),
                "median_gap_steps": round(statistics.median(gaps[41:]) / step, 2),
                "gap_steps": round(worst / step, 2),
                "reading_s": round(times[-1] - times[40], 2),
                "first_turn_s": round(first, 2),
                "second_turn_s": round(second, 2),
                "turn_ratio": round(second / first, 3),
            }
        )
    )


if __name__ == "__main__":
    main()
