"""A flood of clients: every response is the one that the engine alone writes with its seed, and another client's first
token comes meanwhile."""

from __future__ import annotations

import asyncio
import time

import httpx

from engine import Engine
from engine.config import DEMO, REFERENCE
from tests.hostile.client import Answer, Client, RefusedError
from tests.hostile.process import AppProcess
from tests.hostile.result import Result

CLIENTS, SECONDS, TOKENS = 32, 60.0, 12
PROMPTS = ["How do I clean a pan?", "How do I store herbs?", "What removes a stain?", "When do I water a fern?"]
SEEDS = 4
HONEST = "127.0.0.2"  # the honest client's address
PATIENCE = 30.0  # seconds for another client's first token


async def flood(url: str, number: int, until: float, answers: list[tuple[str, int, Answer]], refused: list[str],
                result: Result) -> None:  # fmt: skip
    """Generate in a browser until the time is over."""
    async with Client.open(url) as client:
        await generate(client, number, until, answers, refused, result)


async def generate(client: Client, number: int, until: float, answers: list[tuple[str, int, Answer]],
                   refused: list[str], result: Result) -> None:  # fmt: skip
    """Generate until the time is over; each response is kept in `answers`."""
    turn = number
    while time.monotonic() < until:
        prompt, seed = PROMPTS[turn % len(PROMPTS)], 10 * (turn // len(PROMPTS) % SEEDS)
        turn += 1
        try:
            answers.append((prompt, seed, await client.generate(prompt, seed, TOKENS)))
        except RefusedError as error:
            refused.append(str(error))
            await asyncio.sleep(1)
        except httpx.HTTPError as error:
            result.check(False, f"client {number}: {type(error).__name__}: {error}")
            await asyncio.sleep(1)


async def honest(client: Client, until: float, result: Result) -> None:
    """Generate now and then, as a person would, and note when the first token comes."""
    while time.monotonic() < until:
        try:
            answer = await asyncio.wait_for(client.generate(PROMPTS[0], 500, TOKENS), PATIENCE)
            result.latencies.append(answer.first)
            result.check(answer.first > 0, "the honest client got no token")
        except (RefusedError, httpx.HTTPError, asyncio.TimeoutError) as error:
            result.check(False, f"the honest client: {type(error).__name__}: {error}")
        await asyncio.sleep(1)


def expected(keys: set[tuple[str, int]]) -> dict[tuple[str, int], dict[str, str]]:
    """Return {(prompt, seed): text of each panel} of the engine alone."""
    with Engine.from_config(DEMO) as engine:
        names = engine.policy_set.names
        settings = {"max_new_tokens": TOKENS, "temperature": 0.7, "min_p": 0.1}
        return {
            (prompt, seed): {
                "left": engine.generate(prompt, dict.fromkeys(names, 0.5), seed=seed, **settings).text,
                "right": engine.generate(prompt, {REFERENCE: 1.0}, seed=seed + 1, **settings).text,
            }
            for prompt, seed in sorted(keys)
        }


async def run(app: AppProcess, scale: float) -> Result:
    """Flood the app for a minute, then compare."""
    result = Result(before=app.memory())
    answers: list[tuple[str, int, Answer]] = []
    refused: list[str] = []
    async with Client.open(app.url, HONEST) as other:
        until = time.monotonic() + SECONDS * min(scale, 1)
        count = max(1, round(CLIENTS * scale))
        floods = (flood(app.url, i, until, answers, refused, result) for i in range(count))
        await asyncio.gather(*floods, honest(other, until, result))
    await asyncio.sleep(10)  # freed memory is returned when the engine has been idle for a while
    result.after = app.memory()
    right = await asyncio.to_thread(expected, {(prompt, seed) for prompt, seed, _ in answers})
    for prompt, seed, answer in answers:
        said = right[prompt, seed]
        result.check(answer.texts == said, f"“{prompt}” with seed {seed}: {answer.texts} is not {said}")
    result.check(bool(answers), "no response came")
    result.notes.append(f"{len(answers)} pairs of responses; {len(refused)} were refused ({refused[:1]})")
    return result
