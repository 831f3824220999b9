"""Rewards of kind `head`: all heads of a configuration share one forward pass of the base that is in memory.

They are computed on a separate thread while the worker decodes with the same weights. The gates and other state of the
folded linears belong to the worker, so the heads run a twin of the model: copies of its modules with the same tensors.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Sequence

import torch
from pydantic import Field
from torch import Tensor, nn

from engine.errors import InputError
from engine.models.folded_adapters import names_base
from engine.models.gated_linear import Gate, GatedLinears
from engine.models.policy_set import PolicySet
from engine.reward_kind import RewardKind, RewardSettings, Scored
from engine.rewards.linear_head import Feature, Head, decoder_layers, features, read_head

log = logging.getLogger("mixdesk")


def twin(model: nn.Module) -> tuple[nn.Module, Gate | None]:
    """Copy a model's modules but not its tensors, so that two threads can run the two concurrently.

    Returns:
        The copy, and the gate of its folded linears, if it has any.
    """
    tensors = [*model.parameters(), *model.buffers()]
    # Packed weights are neither parameters nor buffers.
    tensors += [value for module in model.modules() for value in vars(module).values() if isinstance(value, Tensor)]
    copied = copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})
    gates = [module.gate for module in copied.modules() if isinstance(module, GatedLinears)]
    return copied, gates[0] if gates else None


class HeadSettings(RewardSettings):
    """The settings of a head."""

    sources = ("model",)

    model: str = Field(description="path or hub id of a head: head.json and head.safetensors")


class Heads:
    """The heads of a configuration."""

    def __init__(self, policy_set: PolicySet) -> None:
        self.policy_set = policy_set
        self._heads: dict[str, Head] = {}  # {objective: head}
        self._forward: dict[str, tuple[nn.Module, Callable[[int], None]]] = {}  # {on: model, what sets its gates}

    def add(self, settings: HeadSettings) -> None:
        """Read a reward's head. Raises InputError if it does not fit the base."""
        try:
            head = read_head(settings.model)
        except InputError as error:
            raise InputError(f"reward '{settings.objective}': {error}") from None
        self._check(settings, head)
        self._heads[settings.objective] = head
        if head.on not in self._forward:
            self._forward[head.on] = self._twin(head.on)

    def _check(self, settings: HeadSettings, head: Head) -> None:
        model, reference = self.policy_set.models[0], self.policy_set.policies[0]
        what = f"reward '{settings.objective}': {settings.model}"
        hidden = model.config.get_text_config().hidden_size
        if head.hidden_size != hidden:
            raise InputError(
                f"{what} reads hidden states of {head.hidden_size} numbers, this base's have {hidden}; give a head "
                f"that was trained on this base, not on '{head.base}'"
            )
        count, highest = len(decoder_layers(model)), max(layer for layer, _ in head.features)
        if highest > count:
            raise InputError(
                f"{what} reads layer {highest}, this base has {count}; give a head that was trained on this base, not "
                f"on '{head.base}'"
            )
        if head.chat_template and self.policy_set.tokenizer.chat_template is None:
            raise InputError(f"{what} reads conversations in a chat template, and this base has none; give another")
        if head.on == "reference" and not reference.model and not any(reference.gate):
            raise InputError(
                f"{what} reads the reference's adapter, and this configuration has none; add "
                "'reference: {adapter: ...}', or give a head that was trained on the base"
            )
        if not names_base(head.base, self.policy_set.base):
            log.warning(
                "reward '%s': its head was trained on '%s' and is put on '%s'; right only if those are the same",
                *(settings.objective, head.base, self.policy_set.base),
            )

    def _twin(self, on: str) -> tuple[nn.Module, Callable[[int], None]]:
        reference = self.policy_set.policies[0]
        index = reference.model if on == "reference" else 0
        model, gate = twin(self.policy_set.models[index])
        own = reference.gate if on == "reference" else (0.0,) * len(reference.gate)
        values = torch.tensor([own], dtype=self.policy_set.models[index].dtype, device=self.policy_set.device)

        def prepare(rows: int) -> None:
            if gate is not None:
                gate.set(values.expand(rows, -1))

        return model, prepare

    def release(self) -> None:
        """Drop the references to the models."""
        self._heads.clear()
        self._forward.clear()

    def score(self, items: Sequence[Scored], objectives: Sequence[str]) -> dict[str, list[float]]:
        """Return {objective: the reward of each item}. Heads with the same input share a forward pass."""
        texts = [(prompt, text) for prompt, text, _ in items]
        together: dict[tuple[str, bool], list[str]] = {}
        for objective in objectives:
            head = self._heads[objective]
            together.setdefault((head.on, head.chat_template), []).append(objective)
        scores: dict[str, list[float]] = {}
        for (on, chat_template), some in together.items():
            model, prepare = self._forward[on]
            wanted: list[Feature] = list(dict.fromkeys(f for name in some for f in self._heads[name].features))
            found = features(
                *(model, self.policy_set.tokenizer, texts, wanted), chat_template=chat_template, prepare=prepare
            )
            scores |= {name: self._heads[name].score(found).tolist() for name in some}
        return scores


REWARD = RewardKind(
    name="head",
    paper="Bradley-Terry, on frozen features as in linear probes (arXiv 1610.01644)",
    formula="w · h(x, y) + b, h being the base's hidden states",
    settings=HeadSettings,
    joint=Heads,
    order=2,
)
