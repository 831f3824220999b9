"""Clients of OpenAI's protocol, some of whom leave in the middle: tokens a second of each, rows, memory.

    python -m tests.bench.api_clients [--clients 32] [--seconds 120] [--config data/configs/demo.yaml]

A server of its own is started, and ended afterwards. Every second client leaves at a random moment of each of its
streams and asks again; the others read to the end. Printed are the tokens a second of those who stay, the smallest and
its ratio to the median, the rows and requests that are left when all are gone, and the server's memory after a quarter
of the time and at the end.
"""

from __future__ import annotations

import asyncio
import json
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import httpx
import psutil
import typer

from engine.config import DEMO
from engine.prompts import read_prompts

TOKENS = 60  # of a response


async def client(http: httpx.AsyncClient, number: int, prompts: list[str], models: list[str], end: float) -> int:
    """Ask until the end; return the number of tokens that came."""
    chance, count = random.Random(number), 0
    while time.monotonic() < end:
        leave_at = chance.randrange(1, TOKENS) if number % 2 else None
        body = {
            "model": chance.choice(models),
            "messages": [{"role": "user", "content": chance.choice(prompts)}],
            "max_tokens": TOKENS,
            "stream": True,
            "logprobs": True,
        }
        seen = 0
        async with http.stream("POST", "chat/completions", json=body) as answer:
            answer.raise_for_status()
            async for line in answer.aiter_lines():
                if '"content": [{' in line:
                    seen += 1
                    count += time.monotonic() < end
                if seen == leave_at or time.monotonic() > end:
                    break
    return count


async def measure(
    url: str, clients: int, seconds: float, prompts: list[str], process: psutil.Process
) -> dict[str, Any]:
    """Run all clients, and return what there is to print."""
    limits = httpx.Limits(max_connections=clients + 4)
    async with httpx.AsyncClient(base_url=url, timeout=300, limits=limits) as http:
        policies = [model["id"] for model in (await http.get("models")).json()["data"]]
        models = [f"{one}=0.5,{other}=0.5" for one in policies for other in policies if one < other]
        began = time.monotonic()
        running = [
            asyncio.create_task(client(http, number, prompts, models, began + seconds)) for number in range(clients)
        ]
        await asyncio.sleep(seconds / 4)
        early = process.memory_info().rss
        counts = await asyncio.gather(*running)
        late = process.memory_info().rss
        await asyncio.sleep(1)
        metrics = (await http.get(url.removesuffix("v1") + "metrics")).text
    stay = sorted(count / seconds for count in counts[::2])
    gauges = dict(line.rsplit(" ", 1) for line in metrics.splitlines() if not line.startswith("#"))
    left = {
        name: float(gauges[key]) for name in ("rows", "queue_length") for key in gauges if f"mixdesk_{name}{{" in key
    }
    return {
        "tokens_per_second": round(sum(counts) / seconds, 1),
        "of_those_who_stay": [round(rate, 2) for rate in stay],
        "smallest_by_median": round(stay[0] / statistics.median(stay), 3),
        "left": left,
        "memory_mib": [early >> 20, late >> 20],
    }


def main(
    clients: Annotated[int, typer.Option(help="how many")] = 32,
    seconds: Annotated[float, typer.Option(help="how long")] = 120.0,
    config: Annotated[Path, typer.Option(help="the configuration")] = DEMO,
) -> None:
    """Measure a server under clients half of whom leave in the middle."""
    from engine.config import load_config

    prompts = read_prompts(load_config(config).prompts or "")
    command = [sys.executable, "-m", "engine", "serve", "--port", "0", "--json", "--config", str(config)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout
        url = json.loads(server.stdout.readline())["url"]
        found = asyncio.run(measure(url, clients, seconds, prompts, psutil.Process(server.pid)))
    finally:
        server.terminate()
        server.wait()
    typer.echo(json.dumps(found))


if __name__ == "__main__":
    typer.run(main)
