"""The desk's state, with named fields: what Generate and steering send, and what links and saved mixtures hold.

`python -m app.schemas.desk_state` prints the JSON schema, from which the types of the page's scripts are generated.
"""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.schemas import conversation
from app.schemas.conversation import Turns
from app.schemas.solo_mute_lock import Channels
from engine import InputError, Sampling
from engine.messages import Prompt

LONGEST = 1_000_000  # characters of a link
ESCAPED = {"n": "\n", "t": "\t", "\\": "\\"}  # what stands for a character after a backslash in a stop string
ESCAPE = re.compile(r"\\([nt\\])")
UNREADABLE = "The page's settings cannot be read: reload the page."


class MixtureState(BaseModel):
    """Fader positions, their Solo, Mute and Lock, and the mixing rule with its gain and exponent."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    faders: dict[str, Annotated[float, Field(ge=0, le=1)]]
    channels: Channels = Channels()
    rule: str
    gain: float
    exponent: float

    def weights(self) -> dict[str, float]:
        """Return the faders' weights after Lock, Solo and Mute; all zero if every policy is silent."""
        return self.channels.weights(self.faders)

    def audible_weights(self) -> dict[str, float]:
        """Return `weights`.

        Raises:
            InputError: if all are zero.
        """
        weights = self.weights()
        if any(weights.values()):
            return weights
        if any(self.faders.values()):
            raise InputError("No policy is heard: raise a fader that is not silent, or release Solo and Mute.")
        raise InputError("All faders are at zero: raise at least one, or press Even.")

    def fixed(self) -> dict[str, float]:
        """Return {policy: weight} of the policies that no fader can move."""
        return self.channels.fixed(self.faders)


class DeskState(BaseModel):
    """Everything that a response depends on.

    Unknown fields are ignored.

    Attributes:
        v: increases when an older version would misread what a newer one writes; 2 adds a conversation before the
            prompt, 3 stop strings.
        turns: the conversation before the prompt.
        prompt: the prompt's text.
        mixture: the faders and the rule.
        panels: {open panel: its choice of mixture}.
        sampling: {setting: number}, of `temperature`, `min_p` and `max_new_tokens`.
        stop: the stop strings as typed; see `typed_stops`.
        seed: the seed as typed.
        new_seed: whether Generate chooses a seed itself.
    """

    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    v: Literal[1, 2, 3] = 1
    turns: Turns = []
    prompt: str
    mixture: MixtureState
    panels: dict[str, str]
    sampling: dict[str, float]
    stop: str = ""
    seed: str
    new_seed: bool = False

    def question(self) -> Prompt:
        """Return the prompt with the conversation before it.

        Raises:
            InputError: if the prompt is empty within a conversation.
        """
        return conversation.question_turns(self.turns, self.prompt)

    def tokens_sampling(self) -> Sampling:
        """Return how tokens are sampled.

        Raises:
            InputError: if a setting is out of range.
        """
        settings = self.sampling
        return Sampling(
            max_new_tokens=int(settings["max_new_tokens"]),
            temperature=settings["temperature"],
            min_p=settings["min_p"],
            stop=typed_stops(self.stop),
        )


def typed_stops(text: str) -> tuple[str, ...]:
    r"""Return the stop strings in a typed text: one a line, without blank lines; `\n`, `\t` and `\\` are escapes."""
    lines = [line for line in text.split("\n") if line.strip()]
    return tuple(ESCAPE.sub(lambda match: ESCAPED[match[1]], line) for line in lines)


def read_state(text: str) -> DeskState:
    """Parse the state that the page sends as JSON.

    Raises:
        InputError: if it is malformed.
    """
    try:
        return DeskState.model_validate_json(text)
    except ValidationError as error:
        if "hex escape" in str(error):
            raise InputError("prompt: it has half a character (a lone surrogate); type it again") from None
        raise InputError(UNREADABLE) from None


def json_schema() -> str:
    """Return the JSON schema of `DeskState` as the page sends it, with all fields."""

    def untitled(node: Any) -> Any:
        # Pydantic's titles repeat the names, and each would become a type of its own.
        if isinstance(node, list):
            return [untitled(item) for item in node]
        if not isinstance(node, dict):
            return node
        return {key: untitled(value) for key, value in node.items() if key != "title" or not isinstance(value, str)}

    schema = {"title": "DeskState", **untitled(DeskState.model_json_schema(mode="serialization"))}
    return json.dumps(schema, indent=2) + "\n"


if __name__ == "__main__":
    print(json_schema(), end="")
