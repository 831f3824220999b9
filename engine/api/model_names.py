"""The names that a request may give as its model: policies, saved mixtures, and mixtures that are written out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from engine.api.api_error import ApiError, bad_request, unavailable
from engine.api.fields import MixdeskFields
from engine.api.source import EngineSource
from engine.config import REFERENCE
from engine.errors import InputError
from engine.inference.engine import Engine
from engine.inference.parse_mixture import KEYS, read_mixture
from engine.rules.mixture import Mixture

MOST_NAMED = 20  # in an error message


@dataclass(frozen=True)
class Model:
    """What a name stands for.

    Attributes:
        id: the name.
        configuration: the name of its configuration.
        engine: the engine that draws from it.
        mixture: the mixture.
    """

    id: str
    configuration: str
    engine: Engine
    mixture: Mixture

    def described(self, created: int) -> dict[str, Any]:
        """Return the model as OpenAI describes one, with its mixture."""
        owner = {"owned_by": self.configuration, "mixdesk": self.mixture.as_dict()}
        return {"id": self.id, "object": "model", "created": created, **owner}

    def mixed(self, fields: MixdeskFields) -> Mixture:
        """Return the mixture with what a request changes of it. Raises ApiError."""
        if not fields.mixing:
            return self.mixture
        try:
            return self.engine.mixture(**{**self.mixture.as_dict(), **fields.mixing})
        except InputError as error:
            raise bad_request(f"mixdesk.{error}") from None


def list_models(source: EngineSource) -> Iterator[Model]:
    """Yield the models that have a name, those of the default configuration first and without its name."""
    for place, (configuration, engine) in enumerate(source.engines().items()):
        within = f"{configuration}/" if place else ""
        for name in (REFERENCE, *engine.policy_set.names):
            yield Model(f"{within}{name}", configuration, engine, engine.mixture({name: 1.0}))
        for name in source.saved_names():
            if mixture := saved(source, engine, name):
                yield Model(f"{within}{name}", configuration, engine, mixture)


def find_model(source: EngineSource, name: str) -> Model:
    """Return what a name stands for: CONFIGURATION/NAME, or NAME alone of the default configuration.

    Raises:
        ApiError: 404 if it is unknown, 400 if it is a mixture with a mistake, 503 if no configuration is loaded.
    """
    engines = dict(source.engines())
    if not engines:
        raise unavailable("No configuration is loaded; try again in a few seconds.")
    first = next(iter(engines))
    if mixture := named_mixture(source, engines[first], name):
        return Model(name, first, engines[first], mixture)
    configuration, slash, rest = name.partition("/")
    if slash and configuration in engines and (mixture := named_mixture(source, engines[configuration], rest)):
        return Model(name, configuration, engines[configuration], mixture)
    known = [model.id for model in list_models(source)]
    there = ", ".join(known[:MOST_NAMED]) + (", ..." if len(known) > MOST_NAMED else "")
    policies = engines[first].policy_set.names
    example = ",".join(f"{policy}=0.5" for policy in policies[:2])
    raise ApiError(
        404,
        f"model: there is no {name[:60]!r} here; there are {there}, and mixtures such as {example}",
        "model_not_found",
    )


def named_mixture(source: EngineSource, engine: Engine, name: str) -> Mixture | None:
    """Return the mixture of an engine's that a name stands for; None if it stands for none. Raises ApiError."""
    if name in (REFERENCE, *engine.policy_set.names):
        return engine.mixture({name: 1.0})
    if mixture := saved(source, engine, name):
        return mixture
    names = [part.partition("=")[0].strip() for part in name.replace(";", ",").split(",")]
    if "=" not in name or not all(part in (REFERENCE, *KEYS, *engine.policy_set.names) for part in names):
        return None
    try:
        return read_mixture(engine, name)
    except InputError as error:
        raise bad_request(f"model: {error}") from None


def saved(source: EngineSource, engine: Engine, name: str) -> Mixture | None:
    """Return a saved mixture as the engine's; None if there is none, or its policies are not the engine's."""
    mixture = source.saved_mixture(name)
    if mixture is None:
        return None
    weights = {policy: weight for policy, weight in mixture.weights.items() if weight}
    try:
        return engine.mixture(weights, mixture.rule, mixture.gain, mixture.exponent)
    except InputError:
        return None
