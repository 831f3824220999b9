"""Parse mixtures from the command line."""

from __future__ import annotations

from engine.errors import InputError
from engine.inference.engine import Engine
from engine.rules.mixture import Mixture

KEYS = ("rule", "gain", "exponent")


def read_mixture(engine: Engine, text: str) -> Mixture:
    """Parse a mixture such as 'helpful=0.6, humorous=0.4, gain=1.5, rule=soup'. Raises InputError."""
    weights: dict[str, float] = {}
    settings: dict[str, str | float] = {}
    for part in text.replace(";", ",").split(","):
        name, _, value = (piece.strip() for piece in part.partition("="))
        if name in settings or name in weights:
            raise InputError(f"weights: {name} is given twice; give each name once")
        if name == "rule":
            settings[name] = value
            continue
        try:
            (settings if name in KEYS else weights)[name] = float(value)
        except ValueError:
            raise InputError(
                f"weights: found '{part.strip()[:40]}'; type name=number with commas between, such as "
                f"{engine.policy_set.names[0]}=0.6, gain=1.5"
            ) from None
    return engine.mixture(weights or None, **settings)  # type: ignore[arg-type]
