"""Rewards: a real number for (prompt, response), one reward an objective; a prompt may be a conversation."""

from __future__ import annotations

import importlib
import logging
import math
import re
from collections.abc import Callable, Collection
from pathlib import Path

import torch
from transformers import AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase

from engine.adapters import Unfoldable, merge, read_lora
from engine.config import REFERENCE, RewardSettings
from engine.errors import InputError
from engine.gguf import folder_of
from engine.head_rewards import Heads
from engine.messages import BETWEEN, Message, Prompt, joined, last_of, messages_of
from engine.packed import pack
from engine.policies import PolicySet, first_line, load_tokenizer
from engine.scale import RewardScale

log = logging.getLogger("mixdesk")

# (prompt, response text, response tokens if they are known)
Scored = tuple[Prompt, str, "list[int] | None"]
Scorer = Callable[[list[Scored]], list[float]]


def brevity(prompt: str, response: str) -> float:
    """Minus the number of words: for `function: engine.rewards:brevity`."""
    return -float(len(response.split()))


class RewardSet:
    """All rewards of a configuration."""

    def __init__(
        self, settings: list[RewardSettings], policy_set: PolicySet, tell: Callable[[str], None] = log.debug
    ) -> None:
        """tell: is told what is being loaded, as it begins. Raises InputError.

        Objectives are in the policies' order, and those without a policy last in the configuration's: the one order of
        radar, table, faders and charts. `scale` is replaced as a whole once rewards are calibrated.
        """
        places = {policy.objective: place for place, policy in reversed(list(enumerate(policy_set.policies)))}
        settings = sorted(settings, key=lambda reward: places.get(reward.objective, len(places)))
        self.settings = {reward.objective: reward for reward in settings}
        self.scale = RewardScale(
            {reward.objective: reward.mean for reward in settings if reward.mean is not None},
            {reward.objective: reward.std for reward in settings if reward.std is not None},
        )
        makers = {"classifier": classifier, "function": function, "implicit": implicit}
        self._scorers: dict[str, Scorer] = {}
        self._heads = Heads(policy_set)
        for reward in settings:
            tell(f"loading the reward {reward.objective}")
            if reward.kind == "head":
                self._heads.add(reward)
            else:
                self._scorers[reward.objective] = makers[reward.kind](reward, policy_set)

    @property
    def objectives(self) -> list[str]:
        return list(self.settings)

    def together(self, objectives: Collection[str]) -> list[list[str]]:
        """Group objectives by what computes them: all heads share one forward pass."""
        heads = [name for name in objectives if self.settings[name].kind == "head"]
        return [*([heads] if heads else []), *([name] for name in objectives if name not in heads)]

    def release(self) -> None:
        """Let go of the reward models."""
        self._scorers.clear()
        self._heads.release()

    def score(self, items: list[Scored], objectives: Collection[str] | None = None) -> list[dict[str, float]]:
        """{objective: reward} of every (prompt, response, tokens); of these objectives, else of all."""
        asked = self.objectives if objectives is None else list(objectives)
        columns = {name: self._scorers[name](items) for name in asked if name in self._scorers}
        columns |= self._heads.score([item[:2] for item in items], [name for name in asked if name not in columns])
        return [{objective: columns[objective][i] for objective in asked} for i in range(len(items))]

    def standard(self, rewards: dict[str, float]) -> dict[str, float]:
        """Return z-scores against the reference's rewards, of the objectives that are calibrated."""
        return self.scale.standard(rewards)


def classifier(settings: RewardSettings, policy_set: PolicySet) -> Scorer:
    """A sequence-classification model with one output (Bradley-Terry) or a named one of several, or a LoRA of one on
    its base."""
    assert settings.model is not None
    source = base = settings.model
    lora = None
    if (Path(source) / "adapter_config.json").is_file():
        try:
            lora = read_lora(source)
        except Unfoldable as reason:
            raise InputError(
                f"reward '{settings.objective}': {source}: {reason}; merge it into its base first"
            ) from None
        # A path is relative to the adapter's own folder, so that the folders can be moved together.
        base = str((Path(source) / (lora.base or "")).resolve())
        if not lora.base or not Path(base).exists():
            base = lora.base or policy_set.base
    try:
        # A base of a LoRA gets its one output with it; a finished classifier has its own outputs.
        head = {"num_labels": 1} if lora is not None else {}
        # A reward is one number, which 16 bit would round to the nearest hundredth; text does not wait for it.
        dtype = torch.float32 if policy_set.device.type == "cpu" else "auto"
        folder = folder_of(base, dtype)
        model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=dtype, **head)
    except InputError:
        raise
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(f"reward '{settings.objective}': cannot load '{base}': {first_line(error)}") from None
    if lora is not None:
        merge(model, lora)
    output = output_of(model, settings)
    model = model.to(policy_set.device).eval().requires_grad_(False)
    pack(model)
    tokenizer = load_tokenizer(base)
    if model.config.pad_token_id is None:
        # GPT-2 has no token for padding; the last token that is not padding is where the score is read.
        known = [tokenizer.pad_token_id, tokenizer.eos_token_id]
        model.config.pad_token_id = next((token for token in known if token is not None), 0)

    context = min(getattr(model.config, "max_position_embeddings", None) or 2**31, tokenizer.model_max_length)

    @torch.inference_mode()
    def score(items: list[Scored]) -> list[float]:
        rewards: list[float] = []
        for start in range(0, len(items), 32):
            part = items[start : start + 32]
            rows = [fitting(tokenizer, prompt, text, settings.template, context) for prompt, text, _ in part]
            # Right-padded: the score is read at the last token that is not padding.
            longest = max(len(row) for row in rows)
            pad = model.config.pad_token_id
            ids = torch.tensor([row + [pad] * (longest - len(row)) for row in rows], device=policy_set.device)
            mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows], device=policy_set.device)
            rewards += model(input_ids=ids, attention_mask=mask).logits[:, output].float().tolist()
        return rewards

    return score


def output_of(model: PreTrainedModel, settings: RewardSettings) -> int:
    """Which of a classifier's outputs is the reward. Raises InputError."""
    labels = {name.lower(): i for i, name in model.config.id2label.items()}
    known = (
        f"reward '{settings.objective}': {settings.model} has the labels {', '.join(model.config.id2label.values())}"
    )
    if settings.label is None:
        if len(labels) > 1:
            raise InputError(f"{known}; say with 'label' which one is the reward")
        return 0
    if settings.label.lower() not in labels:
        raise InputError(f"{known}; found '{settings.label}', give one of these")
    return labels[settings.label.lower()]


def fitting(
    tokenizer: PreTrainedTokenizerBase, prompt: Prompt, response: str, template: str | None, context: int
) -> list[int]:
    """Token ids of the finished conversation, without its oldest turns where it is longer than `context` tokens."""
    messages = messages_of(prompt)
    while True:
        ids = conversation_ids(tokenizer, messages, response, template, cut=len(messages) == 1)
        if len(messages) == 1 or len(ids) <= context:
            return ids
        messages = messages[2:]


def conversation_ids(
    tokenizer: PreTrainedTokenizerBase,
    prompt: Prompt,
    response: str,
    template: str | None = None,
    cut: bool = True,
) -> list[int]:
    """Token ids of the finished conversation, as reward models are trained on it: in their chat template, or each turn
    and its response in the template, one after the other. cut: to the tokenizer's length, in a template."""
    messages = [*messages_of(prompt), {"role": "assistant", "content": response}]
    if template is not None:
        return tokenizer(filled(template, messages), truncation=cut).input_ids
    if tokenizer.chat_template is None:
        return tokenizer(joined(messages)).input_ids
    return tokenizer.apply_chat_template(messages, return_dict=False)


def filled(template: str, messages: list[Message]) -> str:
    """The template with each prompt and its response. An empty line stands between two, unless the template itself
    begins or ends with white space."""
    # Not str.format: what people type may have braces.
    parts = re.split(r"(\{prompt\}|\{response\})", template)
    turns = []
    for said, answered in zip(messages[::2], messages[1::2], strict=True):
        words = {"{prompt}": said["content"], "{response}": answered["content"]}
        turns.append("".join(words.get(part, part) for part in parts))
    return ("" if template != template.strip() else BETWEEN).join(turns)


def function(settings: RewardSettings, policy_set: PolicySet) -> Scorer:
    """A Python function `(prompt, response) -> float`, named as module:function. Of a conversation it gets what the
    user said last."""
    assert settings.function is not None
    module, _, name = settings.function.partition(":")
    try:
        call = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise InputError(f"reward '{settings.objective}': cannot import {settings.function}: {error}") from None

    def score(items: list[Scored]) -> list[float]:
        rewards = [float(call(last_of(prompt), text)) for prompt, text, _ in items]
        for reward in rewards:
            if not math.isfinite(reward):
                raise InputError(f"reward '{settings.objective}': {settings.function} returned {reward}")
        return rewards

    return score


def implicit(settings: RewardSettings, policy_set: PolicySet) -> Scorer:
    """beta (log π_k(y|x) - log π_ref(y|x)) of the policy with this objective: its own reward up to a constant of x
    (DPO, arXiv 2305.18290, eq. 5)."""
    name = next(policy.name for policy in policy_set.policies if policy.objective == settings.objective)

    def score(items: list[Scored]) -> list[float]:
        rewards = []
        for prompt, text, tokens in items:
            log_probs = policy_set.teacher_forced(prompt, tokens or policy_set.response_ids(text))
            rewards.append(settings.beta * (sum(log_probs[name]) - sum(log_probs[REFERENCE])))
        return rewards

    return score
