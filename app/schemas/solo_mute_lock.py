"""Solo, Mute and Lock: how they turn fader positions into weights.

Generation and expected rewards use this module. static/js/math/mixer.js implements the same rules for the shares
beside the faders, which must follow a moving fader without delay.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from engine import InputError


class Channels(BaseModel):
    """The soloed policies, the muted policies, and {locked policy: its weight}."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False, frozen=True)

    solo: list[str] = []
    mute: list[str] = []
    lock: dict[str, Annotated[float, Field(ge=0, le=1)]] = {}

    @classmethod
    def parse(cls, text: str | None) -> Channels:
        """Parse the page's JSON; None or "" is no Solo, Mute or Lock.

        Raises:
            InputError: if it is malformed.
        """
        try:
            return cls.model_validate_json(text or "{}")
        except (ValidationError, ValueError):
            raise InputError("Lock, Solo and Mute cannot be read: reload the page.") from None

    def weights(self, faders: Mapping[str, float]) -> dict[str, float]:
        """Return {policy: weight} before normalisation; all zero if every policy is silent.

        Solo silences all policies that are not soloed; Mute silences one, soloed or not. An audible locked policy keeps
        its weight, and the other audible policies share the rest in proportion to their faders.
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
        """Return the names that are not silenced by Mute or Solo, in order."""
        return [name for name in names if name not in self.mute and (not self.solo or name in self.solo)]

    def fixed(self, names: Iterable[str]) -> dict[str, float]:
        """Return {policy: weight} of the policies that no fader can move: 0 if silent, else the weight of its lock.

        A solver optimises the remaining weights around these.
        """
        heard = self.heard(names)
        silent = {name: 0.0 for name in names if name not in heard}
        return silent | {name: self.lock[name] for name in heard if name in self.lock}

    def unlocked(self, positions: Mapping[str, float], policies: Iterable[str]) -> dict[str, float]:
        """Return the positions of those of the policies that have one and are not locked."""
        return {name: positions[name] for name in policies if name not in self.lock and name in positions}

    def of(self, policies: list[str]) -> Channels:
        """Return the settings restricted to these policies."""
        return Channels(
            solo=[name for name in policies if name in self.solo],
            mute=[name for name in policies if name in self.mute],
            lock={name: weight for name, weight in self.lock.items() if name in policies},
        )

    def __bool__(self) -> bool:
        return bool(self.solo or self.mute or self.lock)
