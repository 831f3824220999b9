"""The command `python -m engine bench`."""

from __future__ import annotations

from typing import Annotated

import typer

from engine.cli.options import JsonOption, app
from engine.cli.runner import print_json
from engine.errors import InputError


@app.command("bench")
def bench_command(
    shape: Annotated[str, typer.Option(help="tiny, 135m, 360m or 500m: random weights of that shape")] = "135m",
    k: Annotated[int, typer.Option(help="how many policies")] = 4,
    prompt_length: Annotated[int, typer.Option(help="tokens")] = 64,
    steps: Annotated[int, typer.Option(help="of each way of decoding, after warm-up")] = 30,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16, float16 or int8")] = "bfloat16",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:1")] = "auto",
    bank: Annotated[bool, typer.Option("--bank", help="instead: from a fader moved to its expected rewards")] = False,
    json: JsonOption = False,
) -> None:
    """Measure the cost of decoding a mixture against one merged model, K forward passes, and peft's mixed batch."""
    if dtype not in ("float32", "bfloat16", "float16", "int8"):
        raise InputError(f"dtype: found '{dtype}'; give float32, bfloat16, float16 or int8")
    from engine.evaluation.bench import bench as run
    from engine.evaluation.bench import bench_bank

    result = bench_bank() if bank else run(shape, k, prompt_length, steps, dtype, device)
    if json:
        print_json(result)
        return
    for name, value in result.items():
        typer.echo(f"{name:<22} {value}")
