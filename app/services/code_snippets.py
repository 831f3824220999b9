"""The desk's response as code to run elsewhere: YAML, Python, or a command line."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from engine import InputError, Sampling
from engine.config import DEMO
from engine.messages import Prompt, messages_of
from engine.rules.registry import RULES

# Said even where they are the defaults: the command line has others than Python.
ALWAYS = ("max_new_tokens", "temperature")


@dataclass(frozen=True)
class Recipe:
    """Everything needed to generate a response again.

    `weights` are the desk's, before normalisation, so that not even rounding differs. `config` is the configuration's
    file. `date` is today's date if the chat template writes it, else "".
    """

    prompt: Prompt
    weights: dict[str, float]
    rule: str
    gain: float
    exponent: float
    sampling: Sampling
    seed: int
    config: Path
    date: str = ""

    def settings(self) -> dict[str, Any]:
        """Return the keyword arguments of engine.generate, without those that have no effect."""
        made: dict[str, Any] = {
            "prompt": self.prompt,
            "weights": {name: weight for name, weight in self.weights.items() if weight},
            "rule": self.rule,
        }
        if self.gain != 1:
            made["gain"] = self.gain
        if RULES[self.rule].takes_exponent:
            made["exponent"] = self.exponent
        for field in fields(Sampling):
            value = getattr(self.sampling, field.name)
            if field.name in ALWAYS or value != field.default:
                made[field.name] = value
        return {**made, "seed": self.seed, **({"date": self.date} if self.date else {})}

    @property
    def bundled(self) -> bool:
        """True if the configuration is the bundled demo."""
        return self.config == DEMO.resolve()

    @property
    def path(self) -> str:
        """The configuration's file, relative to the working directory if it is below it.

        Copied code then does not depend on this machine's folders.
        """
        here = Path.cwd()
        return str(self.config.relative_to(here) if self.config.is_relative_to(here) else self.config)


def as_yaml(recipe: Recipe) -> str:
    """Return the keyword arguments of engine.generate as YAML."""
    return str(yaml.safe_dump(recipe.settings(), sort_keys=False, allow_unicode=True, width=1000))


def as_python(recipe: Recipe) -> str:
    """Return a Python program that generates the response and prints its text."""
    settings = recipe.settings()
    prompt = settings.pop("prompt")
    if isinstance(prompt, str):
        said = [f"{prompt!r},"]
    else:
        said = ["[", *(f"    {message!r}," for message in messages_of(prompt)), "],"]
    lines = [*(f"        {line}" for line in said), *(f"        {name}={value!r}," for name, value in settings.items())]
    config = "" if recipe.bundled else repr(recipe.path)
    return "\n".join(
        [
            "from engine import Engine",
            "",
            f"with Engine.from_config({config}) as engine:",
            "    completion = engine.generate(",
            *lines,
            "    )",
            "    print(completion.text)",
            "",
        ]
    )


def as_command(recipe: Recipe) -> str:
    """Return a command line for a POSIX shell; a conversation is piped to stdin as JSON.

    Raises:
        InputError: if the prompt or a stop string contains a NUL character, which no command line can hold.
    """
    prompts = [recipe.prompt] if isinstance(recipe.prompt, str) else []
    for what, texts in (("prompt", prompts), ("stop", recipe.sampling.stop)):
        if any("\0" in text for text in texts):
            raise InputError(
                f"{what}: it holds a NUL character, which no command line can hold; copy as Python instead"
            )
    settings = recipe.settings()
    weights = ",".join(f"{name}={weight!r}" for name, weight in settings.pop("weights").items())
    prompt, piped = settings.pop("prompt"), ""
    if not isinstance(prompt, str):
        # ASCII: the shell's locale does not matter, and JSON escapes what no command line can hold.
        piped = f"printf %s {shlex.quote(json.dumps(messages_of(prompt)))} | "
    options: dict[str, Any] = {"messages": "-"} if piped else {"prompt": prompt}
    options |= {"weights": weights, **settings}
    if not recipe.bundled:
        options["config"] = recipe.path
    words = ["python", "-m", "engine", "generate"]
    # A tuple's option is given once for each of its values.
    given = [(name, one) for name, value in options.items() for one in (value if isinstance(value, tuple) else [value])]
    for name, value in given:
        flag, text = f"--{name.replace('_', '-')}", str(value)
        # After an equals sign a minus is no option.
        words += [f"{flag}={shlex.quote(text)}"] if text.startswith("-") else [flag, shlex.quote(text)]
    return piped + " ".join(words) + "\n"


FORMS: dict[str, Callable[[Recipe], str]] = {"YAML": as_yaml, "Python": as_python, "Command line": as_command}
