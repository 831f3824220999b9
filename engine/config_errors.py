"""Errors in a configuration as one line: the file, the key, the value found, the value expected."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from engine.errors import InputError
from engine.reward_kind import RewardSettings
from engine.yaml_file import read_yaml

if TYPE_CHECKING:
    from engine.config import Config


M = TypeVar("M", bound=BaseModel)


def read_model(file: Path, model: type[M], keys: str) -> M:
    """Read a YAML file as a model. Raises InputError naming the file, the key, the value found and expected.

    Args:
        file: an existing file.
        model: the type of the result.
        keys: the keys to name if the file holds something else than a mapping.
    """
    raw = read_yaml(file)
    if not isinstance(raw, dict):
        raise InputError(f"{file}: found {type(raw).__name__}, expected a mapping with {keys}")
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        raise InputError(f"{file}: {describe(error, model, raw)}") from None


def describe(error: ValidationError, model: type[BaseModel], raw: Any = None) -> str:
    """Return the first error of a validation of `raw` as `model` in one line: key, found, expected."""
    errors = error.errors()
    # A mistyped key explains why another one is missing.
    first = next((one for one in errors if one["type"] == "extra_forbidden"), errors[0])
    key = ""
    for part in first["loc"]:
        key += f"[{part}]" if isinstance(part, int) else f".{part}" if key else str(part)
    key = key[:80]
    rest = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    expected = first["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    if first["type"] == "missing":
        return f"{key}: found nothing, expected this key{rest}"
    if first["type"] == "extra_forbidden":
        return f"{key}: found an unknown key, expected none by that name{_suggest(first['loc'], model, raw)}{rest}"
    if first["type"] == "string_type" and isinstance(first["input"], (bool, int, float)):
        expected += "; put it in quotes"  # yes, 12 and 1e3 are no texts in YAML
    if not key:
        return f"expected {expected}{rest}"
    # Not the str() of a list or mapping: written out, aliases of aliases fill the memory.
    short = reprlib.Repr()
    short.maxlevel = 2
    found = first["input"] if isinstance(first["input"], str) else short.repr(first["input"])
    return f"{key}: found {found[:80]!r}, expected {expected}{rest}"


def _suggest(loc: tuple[int | str, ...], model: type[BaseModel], raw: Any) -> str:
    """Return a hint for an unknown key: the most similar key, or else all keys."""
    for part in loc[:-1]:
        raw = raw[part] if raw is not None else None
        if isinstance(part, str) and part in model.model_fields:
            model = _model_in(model.model_fields[part].annotation) or model
    if issubclass(model, RewardSettings):
        model = model.settings_of(raw)
    known = list(model.model_fields)
    close = difflib.get_close_matches(str(loc[-1]).lower(), known, 1)
    return f"; did you mean '{close[0]}'?" if close else f"; there are {', '.join(known)}"


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """Return the model inside an annotation such as `list[Model] | None`; None if there is none."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for inner in get_args(annotation) if (found := _model_in(inner))), None)


def source_lines(config: Config) -> Iterator[tuple[str, str]]:
    """Yield (key, path or hub id) of all models, adapters and heads that a configuration names, the base last."""
    for i, policy in enumerate(config.policies):
        for adapter in policy.adapters:
            yield f"policies[{i}].adapter", adapter
        if policy.model:
            yield f"policies[{i}].model", policy.model
    for i, reward in enumerate(config.rewards):
        for key in reward.sources:
            yield f"rewards[{i}].{key}", getattr(reward, key)
    for adapter in config.reference.adapters if config.reference else []:
        yield "reference.adapter", adapter
    yield "base", config.base


def locate_error(config: Config, error: InputError) -> InputError:
    """Return an error from loading a configuration with its file and key added to the message.

    The key is that of the policy, reward or path that the message names.
    """
    said = str(error)
    if config.file == Path() or str(config.file) in said:
        return error
    if said.partition(":")[0] in type(config).model_fields:  # it begins with the key
        return InputError(f"{config.file}: {said}")
    rewards = [(f"rewards[{i}]", f"reward '{reward.objective}'") for i, reward in enumerate(config.rewards)]
    policies = [(f"policies[{i}]", f"policy '{policy.name}'") for i, policy in enumerate(config.policies)]
    paths = [(key, f"'{source}'") for key, source in source_lines(config)]
    key = next((key for key, name in (*rewards, *policies, *paths) if name in said), None)
    return InputError(f"{config.file}: {key}: {said}" if key else f"{config.file}: {said}")
