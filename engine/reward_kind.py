"""Kinds of reward: each is one file in engine/rewards/ that defines REWARD."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Protocol

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    field_validator,
    model_validator,
)
from typing_extensions import Self

from engine.messages import Prompt
from engine.names import Label
from engine.registry import Registry

# (prompt, response text, response tokens if they are known)
Scored = tuple[Prompt, str, "list[int] | None"]
Scorer = Callable[[list[Scored]], list[float]]


def not_a_truth_value(value: Any) -> Any:
    """Return a number from YAML as it is.

    Raises:
        ValueError: it is yes, no, true or false, which would be 1 or 0.
    """
    if isinstance(value, bool):
        raise ValueError("a valid number")
    return value


Number = Annotated[float, BeforeValidator(not_a_truth_value)]


class RewardSettings(BaseModel):
    """A reward for one objective, as a configuration has it.

    A kind's settings are a subclass; the class itself returns an instance of the subclass of the `kind` that it gets.

    Attributes:
        objective: the name of the objective.
        kind: how the reward is computed, a name in REWARD_KINDS.
        mean: the mean of the reference's rewards.
        std: the standard deviation of the reference's rewards. Without `mean` and `std`, they are estimated
            (engine/bank/calibration.py).
        sources: the keys whose values are paths or hub ids.
    """

    model_config = ConfigDict(extra="forbid")
    sources: ClassVar[tuple[str, ...]] = ()

    objective: Label
    kind: str
    mean: Number | None = Field(default=None, allow_inf_nan=False)
    std: Number | None = Field(default=None, gt=0, allow_inf_nan=False)

    def __new__(cls, **values: Any) -> Self:
        """Create an instance of the class of the kind."""
        return super().__new__(cls.settings_of(values))  # type: ignore[return-value]

    @model_validator(mode="wrap")
    @classmethod
    def of_its_kind(cls, value: Any, handler: ModelWrapValidatorHandler[RewardSettings]) -> RewardSettings:
        """Validate a mapping as the settings of its kind."""
        settings = cls.settings_of(value)
        if settings is not cls:
            return settings.model_validate(value)
        if cls is RewardSettings and isinstance(value, dict):  # the kind is the error, not the keys that it would have
            of_kinds = {key for kind in REWARD_KINDS.values() for key in kind.options}
            value = {key: entry for key, entry in value.items() if key not in of_kinds}
        return handler(value)

    @classmethod
    def settings_of(cls, value: Any) -> type[RewardSettings]:
        """Return the class that a mapping is validated as: that of its kind, or this one if the kind is unknown."""
        kind = value.get("kind") if cls is RewardSettings and isinstance(value, dict) else None
        return REWARD_KINDS[kind].settings if isinstance(kind, str) and kind in REWARD_KINDS else cls

    @field_validator("kind")
    @classmethod
    def known(cls, kind: str) -> str:
        """Reject a kind that is not registered."""
        if kind not in REWARD_KINDS:
            raise ValueError(f"one of {', '.join(REWARD_KINDS)}")
        return kind

    @model_validator(mode="after")
    def calibrated_or_not(self) -> RewardSettings:
        """Reject a mean without a standard deviation, and the reverse."""
        if (self.mean is None) != (self.std is None):
            missing = "mean" if self.mean is None else "std"
            raise ValueError(f"'mean' and 'std' together, or neither: they are then calibrated; '{missing}' is missing")
        return self


class JointScorer(Protocol):
    """All rewards of a kind, computed in one pass."""

    def add(self, settings: Any) -> None:
        """Load a reward. Raises InputError if that is not possible."""

    def score(self, items: Sequence[Scored], objectives: Sequence[str]) -> dict[str, list[float]]:
        """Return {objective: the reward of each item}."""

    def release(self) -> None:
        """Drop the references to the models."""


@dataclass(frozen=True)
class RewardKind:
    """A kind of reward, as a module of engine/rewards/ defines it under the name REWARD. One of `load` and `joint`.

    Attributes:
        name: in configurations.
        paper: the source, with an arXiv number or a citation.
        formula: the reward of a response y to a prompt x, in plain text.
        settings: its keys in a configuration, with a description of each.
        load: `(settings, policy_set) -> scorer` for one reward. Raises InputError if it cannot be loaded.
        joint: `(policy_set) -> JointScorer`, if all rewards of the kind share their passes.
        of_policy: whether the reward is a policy's own. It then needs a policy with its objective, is of all that the
            policy wrote, thoughts included, runs on the scheduler's worker, and cannot be an independent judge.
        at_once: how many responses are read together.
        order: the position in lists.
    """

    name: str
    paper: str
    formula: str
    settings: type[RewardSettings]
    load: Callable[[Any, Any], Scorer] | None = None
    joint: Callable[[Any], JointScorer] | None = None
    of_policy: bool = False
    at_once: int = 1
    order: int = 100

    @property
    def options(self) -> dict[str, str]:
        """{key of the configuration: description} of the keys that other kinds do not have."""
        own = self.settings.model_fields.items()
        return {key: field.description or "" for key, field in own if key not in RewardSettings.model_fields}


REWARD_KINDS: Registry[RewardKind] = Registry("engine.rewards", "REWARD")
