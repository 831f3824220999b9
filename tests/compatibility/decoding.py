"""Decoding in the running batch against a model's own uncached forward pass."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from engine import Engine
from engine.config import REFERENCE
from engine.sampling import Sampling
from tests.compatibility.rows import FOLDED, GENERAL, Result, largest

# Of different lengths, in one batch; all but the first are longer than the windows, and the first grows beyond them.
PROMPTS = ["mix", "move the faders over the lazy dog", "the quick brown fox jumps over the lazy dog and " * 2 + "mix"]
NEW_TOKENS = 16

LogProbs = Callable[[list[int]], Tensor]  # token ids -> [positions, V]


def log_probs_of(model: nn.Module) -> LogProbs:
    """Return what a model says of token ids when it reads them alone and at once."""

    @torch.no_grad()
    def log_probs(ids: list[int]) -> Tensor:
        return model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].float().log_softmax(-1)

    return log_probs


def write_config(folder: Path, policies: list[dict[str, Any]], **settings: Any) -> Path:
    """Write a configuration of the model in `folder`/base."""
    file = folder / "config.yaml"
    named = [{"name": policy["name"], "objective": policy["name"], **policy} for policy in policies]
    file.write_text(
        yaml.safe_dump(
            {"name": "row", "base": "base", "dtype": "float32", "device": "cpu", "policies": named, **settings}
        )
    )
    return file


def compare(config: Path, tokenizer: PreTrainedTokenizerBase, expected: Mapping[str, LogProbs]) -> Result:
    """Decode all prompts at once, and compare each token's log-probability under each policy with the expected one.

    The same tokens are read teacher-forced as well.

    Args:
        config: The configuration's file.
        tokenizer: Of the base, with the template of tests/conftest.py.
        expected: {policy: its log-probabilities}.
    """
    with Engine.from_config(config) as engine:
        notes = [policy.note for policy in engine.policy_set.policies if policy.note]
        names = engine.policy_set.names
        mixture = engine.mixture(dict.fromkeys(names, 1 / len(names)))
        sampling = Sampling(max_new_tokens=NEW_TOKENS, temperature=1.0)
        requests = [engine.submit(prompt, mixture, sampling, seed) for seed, prompt in enumerate(PROMPTS, 1)]
        completions = [request.completion(timeout=100) for request in requests]
        forced = [
            engine.token_log_probs(prompt, completion.tokens) if completion.tokens else {}
            for prompt, completion in zip(PROMPTS, completions, strict=True)
        ]
    differences = []
    for prompt, completion, read in zip(PROMPTS, completions, forced, strict=True):
        ids = tokenizer(f"<|user|>{prompt}<|end|><|assistant|>").input_ids
        for name, log_probs in expected.items():
            found = log_probs([*ids, *completion.tokens])
            for place, token in enumerate(completion.tokens):
                right = found[len(ids) - 1 + place, token].item()
                differences += [completion.trace[place][name] - right, read[name][place] - right]
    gc.collect()
    return Result(GENERAL if notes else FOLDED, largest(differences), next(iter(notes), ""))


def peft_log_probs(model: Any, names: list[str]) -> dict[str, LogProbs]:
    """Return the log-probabilities of the base and of a PeftModel's adapters, which have the policies' names."""
    plain = log_probs_of(model)

    def reference(ids: list[int]) -> Tensor:
        with model.disable_adapter():
            return plain(ids)

    def adapted(name: str) -> LogProbs:
        def log_probs(ids: list[int]) -> Tensor:
            model.set_adapter(name)
            return plain(ids)

        return log_probs

    return {REFERENCE: reference, **{name: adapted(name) for name in names}}
