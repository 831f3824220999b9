"""What programs send to the endpoints of the page, checked before the engine sees it."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from engine import InputError
from engine.messages import Prompt

MAX_PARTICLES = 16  # as many as the page has: a response with more would fill the batch

Weights = dict[str, Annotated[float, Field(ge=0)]]
Numbers = dict[str, float]


class EndpointArguments(BaseModel):
    """Arguments of an endpoint. Numbers are finite; an argument that is not known is an error."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False, extra="forbid")


class MixtureArguments(EndpointArguments):
    """A mixture: weights, or the name of a saved one, with the rule, gain and exponent; None is the default."""

    weights: Weights | None = None
    mixture: str = ""
    rule: str | None = None
    gain: float | None = None
    exponent: float | None = None


class PromptArguments(EndpointArguments):
    """A prompt, and the messages before it."""

    prompt: str
    history: list[dict[str, str]] | None = None

    @property
    def question(self) -> Prompt:
        """The prompt, within its conversation if there is one."""
        return [*self.history, {"role": "user", "content": self.prompt}] if self.history else self.prompt


class GenerateArguments(PromptArguments, MixtureArguments):
    """A prompt, its mixture, and how tokens are sampled."""

    max_new_tokens: int
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    repetition_penalty: float
    particles: Annotated[int, Field(ge=1, le=MAX_PARTICLES)]
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    stop: list[str] | None = None


class ScoreArguments(PromptArguments):
    """A prompt, and the response that is scored."""

    response: str


class SolveArguments(EndpointArguments):
    """How weights are found from the bank."""

    method: str
    fixed: Weights | None = None
    floors: Numbers | None = None
    worth: Numbers | None = None
    gain: Annotated[float, Field(ge=0, le=10)] = 1.0


class RateArguments(EndpointArguments):
    """Two responses by their ids, and which is better."""

    left: str
    right: str
    choice: str
    annotator: str
    rating_id: str = ""


T = TypeVar("T", bound=EndpointArguments)


def read_arguments(kind: type[T], **given: Any) -> T:
    """Return an endpoint's arguments.

    Raises:
        InputError: if one has a wrong type or is out of range; it names the argument.
    """
    try:
        return kind(**given)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place, *inner = [str(part) for part in first["loc"]]
        where = f"{place}, {inner[0]}: " if inner else f"{place}: "
        raise InputError(f"{where}{first['msg'][:1].lower()}{first['msg'][1:]}; found {first['input']!r:.60}") from None
