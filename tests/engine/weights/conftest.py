"""Random tiny policies whose responses can all be written out: 5 tokens, at most 6 of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from scipy.optimize import minimize
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from engine import Engine
from engine.bank import Array, Bank
from tests.conftest import ALL_LINEARS, make_adapter

WORDS = ["a", "b", "c", "d", "<end>"]
LENGTH = 6
PROMPTS = ["a", "b c", "d d", "c a b", "b", "a d c b", "c c", "d a"]


def count_a(prompt: str, response: str) -> float:
    return float(response.split().count("a"))


def make(folder: Path, count: int, seed: int) -> Path:
    """The configuration of `count` adapters on a random base."""
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="a"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>").save_pretrained(folder / "base")
    torch.manual_seed(seed)
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = LlamaConfig(
        vocab_size=5, **shape, max_position_embeddings=64, initializer_range=0.15, eos_token_id=4, bos_token_id=None
    )
    LlamaForCausalLM(config).save_pretrained(folder / "base")
    names = [f"p{i}" for i in range(count)]
    for i, name in enumerate(names):
        adapter = {"r": 4, "lora_alpha": 6, "target_modules": ALL_LINEARS}
        make_adapter(folder / "base", folder / name, seed * 10 + i, **adapter)
    path = folder / "small.yaml"
    rewards = [
        {"objective": "short", "kind": "function", "function": "engine.rewards:brevity"},
        {"objective": "first", "kind": "function", "function": "tests.engine.weights.conftest:count_a"},
    ]
    policies = [{"name": name, "objective": name, "adapter": name} for name in names]
    path.write_text(yaml.safe_dump({"name": "small", "base": "base", "policies": policies, "rewards": rewards}))
    return path


@dataclass(frozen=True)
class Exact:
    """Every response to every prompt. log_probs [P, Y, K + 1]: the reference first; rewards [P, Y, R]."""

    log_probs: Array
    rewards: Array
    texts: list[str]

    @property
    def log_ratios(self) -> Array:
        return self.log_probs[..., 1:] - self.log_probs[..., :1]

    def log_mixture(self, weights: Array) -> tuple[Array, Array]:
        """log π_λ [P, Y], and log of its normaliser [P]."""
        log_w = self.log_probs[..., 1:] @ weights + (1 - weights.sum()) * self.log_probs[..., 0]
        normaliser = np.logaddexp.reduce(log_w, -1)
        return log_w - normaliser[:, None], normaliser

    def objective(self, weights: Array) -> float:
        return float(self.log_mixture(weights)[1].mean())

    def gradient(self, weights: Array) -> Array:
        mixture = np.exp(self.log_mixture(weights)[0])
        return np.einsum("py,pyk->k", mixture, self.log_ratios) / len(mixture)

    def expected(self, weights: Array) -> Array:
        return np.einsum("py,pyr->r", np.exp(self.log_mixture(weights)[0]), self.rewards) / len(self.rewards)

    def best(self) -> Array:
        count = self.log_probs.shape[-1] - 1
        found = minimize(
            lambda at: (self.objective(at), self.gradient(at)),
            np.full(count, 1 / count),
            jac=True,
            method="SLSQP",
            bounds=[(0, 1)] * count,
            constraints={"type": "eq", "fun": lambda at: at.sum() - 1},
            options={"ftol": 1e-14, "maxiter": 1000},
        )
        return found.x.clip(0) / found.x.clip(0).sum()

    def sample(self, weights: list[Array], count: int, rng: np.random.Generator) -> Bank:
        """A bank as `collect` would make it, with `count` responses of each of these mixtures of [reference, policies],
        here of whole responses."""
        prompts, names = len(self.log_probs), [f"p{i}" for i in range(self.log_probs.shape[-1] - 1)]
        chosen = np.zeros((prompts, len(weights) * count), dtype=int)
        proposed = np.zeros((len(weights), *self.log_probs.shape[:2]))
        for m, weight in enumerate(weights):
            log_q = self.log_probs @ weight
            proposed[m] = log_q - np.logaddexp.reduce(log_q, -1)[:, None]
            for p in range(prompts):
                q = np.exp(proposed[m, p])
                chosen[p, m * count : (m + 1) * count] = rng.choice(len(q), size=count, p=q / q.sum())
        at = np.arange(prompts)[:, None], chosen
        balance = (np.logaddexp.reduce(proposed, 0) - np.log(len(weights)))[at]
        return Bank(
            policies=names,
            objectives=["short", "first"],
            prompts=PROMPTS,
            log_ratios=self.log_ratios[at],
            log_base=self.log_probs[at][..., 0] - balance,
            rewards=self.rewards[at],
            policy_tokens=0,
        )


@torch.inference_mode()
def enumerate_all(engine: Engine) -> Exact:
    """By the policies' own forward passes over all prefixes, without the running batch."""
    policy_set = engine.policy_set
    prefixes = list(product(range(4), repeat=LENGTH - 1))
    responses = [(*p[:n], 4) for n in range(LENGTH) for p in sorted({prefix[:n] for prefix in prefixes})]
    responses += [(*prefix, last) for prefix in prefixes for last in range(4)]
    texts = [policy_set.text(list(response)) for response in responses]
    tables, rewards = [], []
    for prompt in PROMPTS:
        ids = policy_set.prompt_ids(policy_set.policies[0], prompt)
        columns = []
        for policy in policy_set.policies:
            read = policy_set.pad([[*ids, *prefix] for prefix in prefixes])
            logits = policy_set.forward(0, [policy] * len(prefixes), *read)[:, len(ids) - 1 :]
            next_token = logits.double().log_softmax(-1)  # [prefixes, LENGTH, 5]
            row_of = {prefix[:n]: i for i, prefix in enumerate(prefixes) for n in range(LENGTH)}
            rows = [row_of[response[:-1]] for response in responses]
            table = next_token[rows]  # [responses, LENGTH, 5]
            pairs = zip(table.tolist(), responses, strict=True)
            columns.append([sum(row[i][token] for i, token in enumerate(said)) for row, said in pairs])
        tables.append(np.array(columns).T)
        rewards.append(np.array([[-len(text.split()), count_a(prompt, text)] for text in texts], dtype=float))
    return Exact(np.array(tables), np.array(rewards), texts)


@dataclass(frozen=True)
class Small:
    engine: Engine
    exact: Exact


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[int, int], Small]]:
    """small(K, seed)"""
    made: dict[tuple[int, int], Small] = {}

    def get(count: int, seed: int) -> Small:
        if (count, seed) not in made:
            engine = Engine.from_config(make(tmp_path_factory.mktemp(f"small-{count}-{seed}"), count, seed))
            made[count, seed] = Small(engine, enumerate_all(engine))
        return made[count, seed]

    yield get
    for some in made.values():
        some.engine.close()
