"""The fields that requests share, their checks, and what happens to fields that are not read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from engine.api.api_error import ApiError, bad_request
from engine.errors import InputError
from engine.sampling import Sampling

MOST_CHOICES = 256  # of a request, over all of its prompts
MOST_STOPS = 16
LARGEST_SEED = 2**63
ANY_TEXT = "any text"  # a neutral value: the field only names the sender
PENALTY = "; Mixdesk has another, `mixdesk.repetition_penalty`"
T = TypeVar("T", bound="Fields")

# {field of OpenAI's: values that change nothing}, beside null. Another value is refused rather than ignored.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "user": (ANY_TEXT,),
}
CHAT_NEUTRAL: dict[str, tuple[Any, ...]] = {
    **NEUTRAL,
    "audio": (),
    "function_call": ("none",),
    "functions": ([],),
    "metadata": ({},),
    "modalities": (["text"],),
    "moderation": (),
    "parallel_tool_calls": (True, False),
    "prediction": (),
    "prompt_cache_key": (ANY_TEXT,),
    "prompt_cache_options": ({},),
    "prompt_cache_retention": (ANY_TEXT,),
    "reasoning_effort": ("none",),
    "response_format": ({"type": "text"},),
    "safety_identifier": (ANY_TEXT,),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "verbosity": ("medium",),
    "web_search_options": (),
}
COMPLETION_NEUTRAL: dict[str, tuple[Any, ...]] = {**NEUTRAL, "suffix": ("",)}


class Fields(BaseModel):
    """The fields of a request; those that it does not know are in `model_extra`."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)

    @classmethod
    def neutral(cls) -> Mapping[str, tuple[Any, ...]]:
        """Return {field that is not read: its values that may be given}."""
        return {}


def read_stop(value: Any) -> Any:
    """Return stop strings as a tuple. Raises ValueError."""
    if value is None:
        return ()
    found = [value] if isinstance(value, str) else value
    if not isinstance(found, list) or not all(isinstance(text, str) and text for text in found):
        raise ValueError("expected a text, or a list of texts that are not empty")
    if len(found) > MOST_STOPS:
        raise ValueError(f"found {len(found)} texts, {MOST_STOPS} are the most")
    return tuple(dict.fromkeys(found))


def read_logit_bias(value: Any) -> Any:
    """Return (token id, bias) of each biased token. Raises ValueError."""
    if value is None:
        return ()
    expected = 'expected {"token id": number from -100 to 100}'
    if not isinstance(value, dict):
        raise ValueError(expected)
    found: dict[int, float] = {}
    for key, bias in value.items():
        if not (key.isascii() and key.isdecimal() and len(key) < 10):
            raise ValueError(f"found the key {key[:20]!r}, {expected}")
        if isinstance(bias, bool) or not isinstance(bias, (int, float)) or not -100 <= bias <= 100:
            raise ValueError(f"found {str(bias)[:20]} for the token {int(key)}, {expected}")
        found[int(key)] = float(bias)
    return tuple(found.items())


Stop = Annotated[tuple[str, ...], BeforeValidator(read_stop)]
LogitBias = Annotated[tuple[tuple[int, float], ...], BeforeValidator(read_logit_bias)]


class StreamOptions(Fields):
    """What a stream tells beside its text."""

    include_usage: bool | None = None

    @classmethod
    def neutral(cls) -> Mapping[str, tuple[Any, ...]]:
        """Padding against eavesdroppers is not written."""
        return {"include_obfuscation": (False,)}


class MixdeskFields(Fields):
    """Mixdesk's own settings, the field `mixdesk` of a request: the mixture, and what OpenAI's sampling lacks."""

    weights: dict[str, float] | None = None
    rule: str | None = None
    gain: float | None = None
    exponent: float | None = None
    particles: int | None = Field(default=None, ge=1)
    top_k: int | None = Field(default=None, ge=0)
    min_p: float | None = None
    repetition_penalty: float | None = None

    @property
    def mixing(self) -> dict[str, Any]:
        """Return the arguments of `Engine.mixture` that are given."""
        given = {name: getattr(self, name) for name in ("weights", "rule", "gain", "exponent")}
        return {name: value for name, value in given.items() if value is not None}

    @property
    def drawing(self) -> dict[str, Any]:
        """Return the arguments of `Sampling` that are given."""
        given = {name: getattr(self, name) for name in ("particles", "top_k", "min_p", "repetition_penalty")}
        return {name: value for name, value in given.items() if value is not None}


class DrawingFields(Fields):
    """What requests for text share."""

    model: str
    temperature: float | None = None
    top_p: float | None = None
    n: int | None = Field(default=None, ge=1, le=MOST_CHOICES)
    seed: int | None = None
    stop: Stop = ()
    logit_bias: LogitBias = ()
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    mixdesk: MixdeskFields = MixdeskFields()

    def check(self) -> None:
        """Raise ApiError if fields contradict each other."""
        if self.stream_options is not None and not self.stream:
            raise bad_request("stream_options: it is for streams only; give stream: true, or leave it out")

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with the numbers of tokens."""
        return bool(self.stream_options and self.stream_options.include_usage)

    def sampling(self, max_new_tokens: int) -> Sampling:
        """Return the sampling settings. Raises ApiError if one is out of range."""
        own = self.mixdesk.drawing
        settings: dict[str, Any] = {
            "temperature": 1.0 if self.temperature is None else self.temperature,
            "top_p": 1.0 if self.top_p is None else self.top_p,
            **({"stop": self.stop} if self.stop else {}),
            **({"logit_bias": self.logit_bias} if self.logit_bias else {}),
            **own,
        }
        try:
            return Sampling(max_new_tokens=max_new_tokens, **settings)
        except InputError as error:
            name = str(error).partition(":")[0]
            raise bad_request(f"mixdesk.{error}" if name in own else str(error)) from None

    def seeds(self, count: int, random: int) -> list[int]:
        """Return the seeds of a prompt's choices: the given one and those after it, else from a random one on."""
        first = random if self.seed is None else self.seed
        return [(first + i) % LARGEST_SEED for i in range(count)]


def parse_fields(kind: type[T], value: dict[str, Any]) -> T:
    """Return the fields of a request. Raises ApiError in one line that names the first field that is wrong."""
    given = {name: each for name, each in value.items() if each is not None or name not in kind.model_fields}
    try:
        found = kind.model_validate(given)
    except ValidationError as error:
        raise bad_request(describe_error(error)) from None
    check_extra(found, "")
    return found


def check_extra(fields: Fields, within: str) -> None:
    """Raise ApiError if a field is unknown, or asks for something that Mixdesk does not do."""
    neutral = fields.neutral()
    for name, value in (fields.model_extra or {}).items():
        if name not in neutral:
            known = ", ".join(type(fields).model_fields)
            raise bad_request(f"{within}{name[:60]}: there is no such field here; leave it out (there are {known})")
        allowed = neutral[name]
        if value is None or any(value == one and type(value) is type(one) for one in allowed):
            continue
        if isinstance(value, str) and ANY_TEXT in allowed:
            continue
        if isinstance(value, (int, float)) and not isinstance(value, bool) and value in allowed:
            continue
        hint = PENALTY if name.endswith("_penalty") else ""
        raise bad_request(f"{within}{name}: found {shown(value)}, and Mixdesk has no such setting; leave it out{hint}")
    for name in type(fields).model_fields:
        if isinstance(inner := getattr(fields, name), Fields):
            check_extra(inner, f"{within}{name}.")


def describe_error(error: ValidationError) -> str:
    """Return the first of pydantic's errors as one line that begins with the field's name."""
    first = error.errors(include_url=False)[0]
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]).lstrip(".")[:80]
    if first["type"] == "missing":
        return f"{place}: it is missing; give it"
    words = first["msg"].removeprefix("Value error, ")
    if words.startswith("["):  # a place within the field
        return f"{place}{words}"
    if words.startswith("Input should be "):
        return f"{place}: found {shown(first['input'])}, expected {words.removeprefix('Input should be ')}"
    return f"{place}: {words}"


def shown(value: Any) -> str:
    """Return a value for an error message, cut to a few words."""
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 200:
        return "a huge number"  # whose digits take time
    text = "a list" if isinstance(value, list) else "an object" if isinstance(value, dict) else repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def too_many(choices: int) -> ApiError:
    """Return the error of a request for too many choices at once."""
    return bad_request(f"n: {choices} choices over all prompts, {MOST_CHOICES} are the most; send several requests")
