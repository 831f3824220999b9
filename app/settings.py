"""What is set on the desk as plain values: kept under a name, or sent as a link."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.channels import Channels
from app.turns import Turns
from engine import InputError

LONGEST = 1_000_000  # characters of a link


class MixtureSettings(BaseModel):
    """Where the faders are, and what is made of them."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    faders: dict[str, Annotated[float, Field(ge=0, le=1)]]
    channels: Channels = Channels()
    rule: str
    gain: float
    exponent: float


class DeskSettings(BaseModel):
    """All that a response depends on. panels: {panel: its choice}; sampling: {setting: number}.

    `v` goes up when an older desk would misread what a newer one writes: 2 has a conversation before the prompt. What a
    desk does not know it leaves alone.
    """

    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    v: Literal[1, 2] = 1
    turns: Turns = []
    prompt: str
    mixture: MixtureSettings
    panels: dict[str, str]
    sampling: dict[str, float]
    seed: Annotated[str, Field(pattern=r"^[0-9]{1,19}$")]


def to_link(settings: DeskSettings) -> str:
    """The part of an address after 'mix=': letters, digits, - and _. Raises InputError."""
    try:
        packed = settings.model_dump_json().encode()
    except ValueError:
        raise InputError("prompt: it holds half a character (a lone surrogate); type it again") from None
    return base64.urlsafe_b64encode(packed).decode().rstrip("=")


def from_link(text: str) -> DeskSettings:
    """What `to_link` wrote. Raises InputError."""
    try:
        if len(text) > LONGEST:
            raise ValueError
        standard = text.translate(str.maketrans("-_", "+/"))
        packed = base64.b64decode(standard + "=" * (-len(standard) % 4), validate=True)
        return DeskSettings.model_validate_json(packed)
    except ValidationError as error:
        if any(found["loc"] == ("v",) for found in error.errors(include_input=False, include_context=False)):
            raise InputError("link: it is from another version of Mixdesk, and cannot be read here.") from None
        raise InputError("link: it is broken; copy it again, all of it.") from None
    except (ValueError, binascii.Error):
        raise InputError("link: it is broken; copy it again, all of it.") from None
