"""The policies and rewards of an engine on another machine, as far as a desk needs them."""

from __future__ import annotations

import io
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from transformers import PreTrainedTokenizerBase

from engine.config import REFERENCE
from engine.errors import InputError
from engine.models.loading import load_tokenizer
from engine.models.policy_set import Policy
from engine.reward_kind import RewardSettings
from engine.rewards.scale import RewardScale
from engine.rules.mixture import Mixture, make_mixture
from engine.rules.registry import DEFAULT_RULE


class RemotePolicies:
    """What a desk needs of a PolicySet whose models are elsewhere.

    Attributes:
        policies: the policies, the reference first.
        by_name: {name: policy}.
        context: the most tokens of prompt and response together.
        stop_ids: the tokens that end a turn.
        notes: remarks on the policies.
    """

    def __init__(self, call: Callable[..., Any], get: Callable[[str], bytes], described: Mapping[str, Any]) -> None:
        """Take the policies from an engine's description.

        Args:
            call: calls the engine, as `EngineClient.call` does.
            get: returns what is at a path of the engine.
            described: the description.
        """
        self._call, self._get = call, get
        self._dated, self._soup_error = described["dated"], described["soup_error"]
        self._spelled: dict[int, str] = {}
        self.policies = [Policy(**policy) for policy in described["policies"]]
        self.by_name = {policy.name: policy for policy in self.policies}
        self.context: int = described["context"]
        self.stop_ids: set[int] = set(described["stop_ids"])
        self.notes: list[str] = described["notes"]

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The base's tokenizer, which is fetched at the first access. Raises EngineError."""
        with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(io.BytesIO(self._get("/tokenizer"))) as files:
            for name in files.namelist():
                (Path(folder) / Path(name).name).write_bytes(files.read(name))  # in the folder, whatever its name
            return load_tokenizer(folder)

    @property
    def chat(self) -> SimpleNamespace:
        """The chat format; it has `template` alone."""
        return SimpleNamespace(template=self.tokenizer.chat_template)

    @property
    def names(self) -> list[str]:
        """The names of the policies without the reference."""
        return [policy.name for policy in self.policies if policy.name != REFERENCE]

    def now(self) -> str:
        """Return the time in ISO format if a chat template writes one, else ""."""
        return datetime.now().isoformat(timespec="seconds") if self._dated else ""

    def spell(self, tokens: Sequence[int]) -> list[str]:
        """Return how each token is shown alone; see `PolicySet.spell`."""
        if missing := [token for token in tokens if token not in self._spelled]:
            self._spelled.update(zip(missing, self._call("spell", tokens=missing), strict=True))
        return [self._spelled[token] for token in tokens]

    def mixture(
        self,
        weights: Mapping[str, float] | None = None,
        rule: str = DEFAULT_RULE,
        gain: float = 1.0,
        exponent: float = 1.0,
    ) -> Mixture:
        """Return a checked mixture of these policies; no weights means uniform. Raises InputError."""
        mixture = make_mixture(weights, self.names, rule, gain, exponent)
        if mixture.averages_adapters and self._soup_error:
            raise InputError(self._soup_error)
        return mixture


class RemoteRewards:
    """What a desk needs of a RewardSet whose models are elsewhere; `scale` is calibrated by the desk.

    Attributes:
        settings: {objective: settings}, in the engine's order.
        scale: mean and standard deviation of the reference's rewards.
    """

    def __init__(self, settings: list[RewardSettings], objectives: list[str], scale: RewardScale) -> None:
        """Take the rewards of a configuration in the order of `objectives`."""
        by_objective = {reward.objective: reward for reward in settings}
        self.settings = {name: by_objective[name] for name in objectives}
        self.scale = scale

    @property
    def objectives(self) -> list[str]:
        """The names of the objectives, in their order."""
        return list(self.settings)

    def standard(self, rewards: dict[str, float]) -> dict[str, float]:
        """Return the rewards of calibrated objectives as z-scores against the reference's rewards."""
        return self.scale.standard(rewards)
