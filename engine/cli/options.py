"""The command line's app, and the options that its commands share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engine.config import DEMO
from engine.errors import InputError
from engine.messages import Prompt, check_messages, read_messages

if TYPE_CHECKING:
    from engine.inference.engine import Engine

app = typer.Typer(
    help="Mix language-model policies.", add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False
)

ConfigOption = Annotated[Path, typer.Option("--config", help="YAML configuration; the bundled policies by default")]
EngineOption = Annotated[
    str,
    typer.Option(
        "--engine",
        help="instead of a configuration: the address of `python -m engine serve`, also of its replicas; a key in "
        "MIXDESK_ENGINE_KEY",
    ),
]
MessagesOption = Annotated[
    str | None, typer.Option(help="instead: a JSON file, a conversation's messages (role, content); - is stdin")
]
JsonOption = Annotated[bool, typer.Option("--json", help="one JSON object on stdout")]
MaxNewTokens = Annotated[int, typer.Option(help="the most tokens of a response")]
MinP = Annotated[float, typer.Option(help="only tokens of at least p times the likeliest; 0 is off")]
Temperature = Annotated[float, typer.Option(help="0 takes the likeliest token")]
Prompts = Annotated[
    Path | None,
    typer.Option(help="JSON, JSON lines, CSV, TSV, Parquet or one a line, also .gz; the configuration's by default"),
]
Column = Annotated[
    str | None, typer.Option(help="with --prompts: the column or key that the prompts are in; prompt by default")
]
Seed = Annotated[int, typer.Option(help="the same seed gives the same response")]


def prompt_of(prompt: str | None, messages: str | None) -> Prompt:
    """Return the prompt from --prompt or --messages. Raises InputError unless exactly one of them is given."""
    if (prompt is None) == (messages is None):
        raise InputError("give either --prompt TEXT or --messages FILE, a JSON list of messages (- is stdin)")
    return check_messages(prompt) if messages is None else read_messages(messages)


def open_engine(config: Path, address: str) -> Engine:
    """Return the engine of a configuration, or the one at an address.

    Raises:
        InputError: the configuration cannot be loaded, the engine cannot be reached, or both are given.
    """
    if not address:
        from engine.inference.engine import Engine

        return Engine.from_config(config)
    if config != DEMO:
        raise InputError("--engine: the configuration is that engine's; leave --config out")
    from engine.remote import RemoteEngine

    return RemoteEngine(address, os.environ.get("MIXDESK_ENGINE_KEY", ""))


def check_column(prompts: Path | None, column: str | None) -> None:
    """Raise InputError if --column is given without --prompts."""
    if column is not None and prompts is None:
        raise InputError("--column is for --prompts; add a file of prompts, or leave it out")
