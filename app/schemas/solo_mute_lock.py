"""Lock, Solo and Mute: what they make of the faders.

Whatever is generated or expected comes from here; static/js/math/mixer.js has the same for the shares beside the
faders, which are to follow a hand at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from engine import InputError


class Channels(BaseModel):
    """Which policies are soloed and muted, and the weight at which others are locked, all by name."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False, frozen=True)

    solo: list[str] = []
    mute: list[str] = []
    lock: dict[str, Annotated[float, Field(ge=0, le=1)]] = {}

    @classmethod
    def parse(cls, text: str | None) -> Channels:
        """As the page has it. Raises InputError."""
        try:
            return cls.model_validate_json(text or "{}")
        except (ValidationError, ValueError):
            raise InputError("Lock, Solo and Mute cannot be read: reload the page.") from None

    def weights(self, faders: Mapping[str, float]) -> dict[str, float]:
        """{policy: weight}, to be brought to the simplex; all zero where nothing is heard.

        Solo silences all that are not soloed, Mute silences one, soloed or not. A locked policy keeps its weight as
        long as it is heard, and the others share what is left as their faders say.
        """
        heard = self.heard(faders)
        locked = {name: self.lock[name] for name in heard if name in self.lock}
        free = {name: faders[name] for name in heard if name not in self.lock}
        weights = dict.fromkeys(faders, 0.0)
        if not locked:
            # The faders as they are: what is generated again from them is the same to the last bit.
            return weights | free
        left, total = max(0.0, 1 - math.fsum(locked.values())), math.fsum(free.values())
        return weights | locked | {name: left * fader / total if total else 0.0 for name, fader in free.items()}

    def heard(self, names: Iterable[str]) -> list[str]:
        return [name for name in names if name not in self.mute and (not self.solo or name in self.solo)]

    def fixed(self, names: Iterable[str]) -> dict[str, float]:
        """{policy: weight} of those whose weight no fader can move: 0 where it is silent, or what it is locked at.

        A solver finds the weights of the others around them.
        """
        heard = self.heard(names)
        silent = {name: 0.0 for name in names if name not in heard}
        return silent | {name: self.lock[name] for name in heard if name in self.lock}

    def unlocked(self, positions: Mapping[str, float], faders: Mapping[str, Any]) -> dict[Any, float]:
        """{fader: position} of those that may be moved and have one."""
        return {fader: positions[name] for name, fader in faders.items() if name not in self.lock and name in positions}

    def of(self, policies: list[str]) -> Channels:
        """Without what is said of other policies."""
        return Channels(
            solo=[name for name in policies if name in self.solo],
            mute=[name for name in policies if name in self.mute],
            lock={name: weight for name, weight in self.lock.items() if name in policies},
        )

    def __bool__(self) -> bool:
        return bool(self.solo or self.mute or self.lock)
