"""The mixture that a choice of a panel, or of a comparison, names."""

from __future__ import annotations

from dataclasses import replace

from app.schemas.desk_state import MixtureState
from engine import Engine, InputError, Mixture, Sampling
from engine.config import REFERENCE
from engine.rules.registry import DEFAULT_RULE

FADERS, EXACT, UNIFORM = "faders", "exact", "uniform"
POLICY = "policy:"  # followed by its name
PARTICLES = 16  # of EXACT


def chosen_mixture(choice: str, state: MixtureState, engine: Engine) -> Mixture:
    """Return the mixture that a choice names.

    Rule, gain and exponent are the desk's for the faders and for all policies alike. A policy or the reference alone is
    itself, with gain 1.

    Args:
        choice: FADERS, EXACT, UNIFORM, REFERENCE, or POLICY and a name.
        state: The faders and the rule.
        engine: The engine of the policies.

    Raises:
        InputError: if no policy is heard, or the engine rejects the mixture.
    """
    if choice == REFERENCE or choice.startswith(POLICY):
        return engine.mixture({choice.removeprefix(POLICY): 1.0})
    if choice not in (FADERS, EXACT, UNIFORM):
        raise InputError(f"this desk has no mixture “{choice[:40]}”")
    weights = None if choice == UNIFORM else state.audible_weights()
    # Only a product of distributions has an exact mixture.
    rule = DEFAULT_RULE if choice == EXACT else state.rule
    return engine.mixture(weights, rule, gain=state.gain, exponent=state.exponent)


def chosen_sampling(choice: str, sampling: Sampling) -> Sampling:
    """Return how the tokens of a choice are sampled: `sampling`, with particles for EXACT.

    Raises:
        InputError: if EXACT is to be greedy.
    """
    if choice != EXACT:
        return sampling
    if sampling.temperature == 0:
        raise InputError("Faders exact samples at random: raise the temperature above 0, or choose Faders.")
    return replace(sampling, particles=PARTICLES)
