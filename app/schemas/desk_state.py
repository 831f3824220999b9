"""The desk's settings as plain values, for saved mixtures and for links."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.schemas.conversation import Turns
from app.schemas.solo_mute_lock import Channels

LONGEST = 1_000_000  # characters of a link


class MixtureSettings(BaseModel):
    """Fader positions, their Solo, Mute and Lock, and the mixing rule with its gain and exponent."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    faders: dict[str, Annotated[float, Field(ge=0, le=1)]]
    channels: Channels = Channels()
    rule: str
    gain: float
    exponent: float


class DeskSettings(BaseModel):
    """Everything that a response depends on. panels: {panel: its choice}; sampling: {setting: number}.

    `v` increases when an older version would misread what a newer one writes; 2 adds a conversation before the prompt.
    Unknown fields are ignored.
    """

    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    v: Literal[1, 2] = 1
    turns: Turns = []
    prompt: str
    mixture: MixtureSettings
    panels: dict[str, str]
    sampling: dict[str, float]
    seed: Annotated[str, Field(pattern=r"^[0-9]{1,19}$")]
