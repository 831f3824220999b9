"""The fields of requests to /v1/completions, /tokenize and /detokenize."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from engine.api.api_error import bad_request
from engine.api.fields import COMPLETION_NEUTRAL, MOST_CHOICES, DrawingFields, Fields, too_many

MOST_TOP_LEGACY = 20
DEFAULT_TOKENS = 16  # OpenAI's
RawPrompt = str | tuple[int, ...]  # a text, or token ids


NO_PROMPT: tuple[RawPrompt, ...] = ((),)  # which is the tokenizer's BOS token


def is_ids(value: Any) -> bool:
    """Return whether a value is a list of token ids."""
    return isinstance(value, list) and all(type(one) is int and 0 <= one < 2**31 for one in value)


def read_prompts_field(value: Any) -> Any:
    """Return the prompts of a request. Raises ValueError."""
    if value is None or value == []:
        return [()]
    if isinstance(value, str):
        return [value]
    if is_ids(value):
        return [tuple(value)]
    if not isinstance(value, list) or not all(isinstance(one, str) or is_ids(one) for one in value):
        raise ValueError("expected a text, a list of texts, token ids, or a list of lists of token ids")
    if len(value) > MOST_CHOICES:
        raise ValueError(f"found {len(value)} prompts, {MOST_CHOICES} are the most; send several requests")
    return [one if isinstance(one, str) else tuple(one) for one in value]


def read_ids(value: Any) -> Any:
    """Return token ids. Raises ValueError."""
    if not is_ids(value):
        raise ValueError("expected a list of token ids")
    return value


Prompts = Annotated[list[RawPrompt], BeforeValidator(read_prompts_field)]


class CompletionFields(DrawingFields):
    """A request to /v1/completions."""

    prompt: Annotated[list[RawPrompt], BeforeValidator(read_prompts_field)] = Field(
        default_factory=lambda: list(NO_PROMPT)
    )
    max_tokens: int = Field(default=DEFAULT_TOKENS, ge=0)
    logprobs: int | None = Field(default=None, ge=0, le=MOST_TOP_LEGACY)
    echo: bool | None = None
    best_of: int | None = Field(default=None, ge=1)

    @classmethod
    def neutral(cls) -> Mapping[str, tuple[Any, ...]]:
        """Return {field that is not read: its values that may be given}."""
        return COMPLETION_NEUTRAL

    def check(self) -> None:
        """Raise ApiError if fields contradict each other."""
        super().check()
        if self.best_of is not None and self.best_of != (self.n or 1):
            raise bad_request("best_of: Mixdesk returns all that it draws; give n instead, or best_of equal to n")
        if self.max_tokens == 0 and not self.echo:
            raise bad_request("max_tokens: found 0, which leaves nothing to return; give 1 or more, or echo: true")
        if len(self.prompt) * (self.n or 1) > MOST_CHOICES:
            raise too_many(len(self.prompt) * (self.n or 1))


class TokenizeFields(Fields):
    """A request to /tokenize."""

    prompt: str
    add_special_tokens: bool | None = None
    model: str | None = None


class DetokenizeFields(Fields):
    """A request to /detokenize."""

    tokens: Annotated[list[int], BeforeValidator(read_ids)]
    model: str | None = None
