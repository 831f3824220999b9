"""Random tiny policies whose responses can all be written out: 5 tokens, at most 6 of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from numpy.typing import NDArray
from scipy.optimize import minimize
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from engine import Engine
from engine.bank.collect_reference_free import Row, assemble_reference_free, draw_rounds
from engine.bank.collection import UNIFORM, Array
from engine.bank.estimate import Bank
from engine.bank.storage import Unit
from engine.inference.token_events import StepRecord, keep_events
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
        {
            "objective": "short",
            "kind": "function",
            "function": "engine.rewards:brevity",
            "mean": 0,
            "std": 1,
        },
        {
            "objective": "first",
            "kind": "function",
            "function": "tests.engine.conftest:count_a",
            "mean": 0,
            "std": 1,
        },
    ]
    policies = [{"name": name, "objective": name, "adapter": name} for name in names]
    path.write_text(yaml.safe_dump({"name": "small", "base": "base", "policies": policies, "rewards": rewards}))
    return path


@dataclass(frozen=True)
class Exact:
    """Every response to every prompt. log_probs [P, Y, K + 1]: the reference first; rewards [P, Y, R]; lengths [Y], in
    tokens. log_even [P, Y]: of all policies mixed alike token by token; None where only whole responses are known."""

    log_probs: Array
    rewards: Array
    texts: list[str]
    lengths: NDArray[np.int64]
    log_even: Array | None = None
    tokens: NDArray[np.int64] | None = None  # [Y, LENGTH], zeros after the end
    log_next: Array | None = None  # [P, K + 1, Y, LENGTH, 5], of every next token under the policies and all alike
    _rows: dict[tuple[int, int], dict[str, Any]] = field(default_factory=dict)

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

    def proposed(self) -> Array:
        """What `collect` draws from: [K + 2, P, Y], log-probs of the policies, the reference, and all alike."""
        assert self.log_even is not None
        alone = np.roll(self.log_probs, -1, -1).transpose(2, 0, 1)
        return np.concatenate([alone, self.log_even[None]])

    def sample(self, weights: list[Array], count: int, rng: np.random.Generator) -> Bank:
        """`count` responses of each of these mixtures of [reference, policies], here of whole responses."""
        log_q = np.array([self.log_probs @ weight for weight in weights])
        return self.draw(log_q - np.logaddexp.reduce(log_q, -1)[..., None], count, rng)

    def lean(self, chosen: list[int], rounds: int, rng: np.random.Generator) -> Bank:
        """A lean bank of these prompts, by number, as `collect_reference_free` would make it."""
        names = [f"p{i}" for i in range(self.log_probs.shape[-1] - 1)]
        proposed = dict(zip([*names, UNIFORM], np.delete(self.proposed(), -2, 0), strict=True))
        cumulative = {name: np.exp(table).cumsum(-1) for name, table in proposed.items()}

        def get(due: dict[Unit, str]) -> dict[Unit, Row]:
            rows = {}
            for (prompt, number), name in due.items():
                table = cumulative[name][place := PROMPTS.index(prompt)]
                response = int(np.searchsorted(table, rng.random() * table[-1], side="right"))
                row = self.row(place, min(response, len(table) - 1), [*names, UNIFORM])
                rows[prompt, number] = {**row, "proposal": name}
            return rows

        asked = [PROMPTS[i] for i in chosen]
        return assemble_reference_free(
            names, ["short", "first"], asked, draw_rounds([*names, UNIFORM], asked, rounds, get)
        )

    def row(self, prompt: int, response: int, sources: list[str]) -> Row:
        """What a lean bank's file has of it, but for its proposal. sources: the policies' names, and EVEN."""
        if (prompt, response) not in self._rows:
            assert self.log_next is not None and self.tokens is not None
            record, size = StepRecord(), int(self.lengths[response])
            for at in range(size):
                steps = torch.tensor(self.log_next[prompt, :, response, at])[:, None]
                keep_events([record], sources, steps, torch.tensor([self.tokens[response, at]]), [4])
            said = np.array(record.said, dtype=float).sum(0)
            self._rows[prompt, response] = {
                "tokens": size,
                "log_probs": dict(zip(sources, said.tolist(), strict=True)),
                "rewards": dict(zip(["short", "first"], self.rewards[prompt, response], strict=True)),
                "steps": record.as_dict(),
            }
        return self._rows[prompt, response]

    def draw(self, proposed: Array, count: int, rng: np.random.Generator) -> Bank:
        """A bank as `collect` would make it. proposed [M, P, Y]: log-probs; `count` responses are drawn of each."""
        sources, prompts, responses = proposed.shape
        cumulative = np.exp(proposed).cumsum(-1)
        level = rng.random((sources, prompts, count)) * cumulative[..., -1:]
        chosen = np.array(
            [
                [np.searchsorted(cumulative[m, p], level[m, p], side="right") for p in range(prompts)]
                for m in range(sources)
            ]
        )
        chosen = chosen.clip(max=responses - 1).transpose(1, 2, 0).reshape(prompts, -1)  # in turn: [P, count * M]
        at = np.arange(prompts)[:, None], chosen
        balance = np.logaddexp.reduce(proposed[:, at[0], chosen], 0) - np.log(sources)
        policies = self.log_probs.shape[-1]
        return Bank(
            policies=[f"p{i}" for i in range(policies - 1)],
            objectives=["short", "first"],
            prompts=PROMPTS,
            log_ratios=self.log_ratios[at],
            log_base=self.log_probs[at][..., 0] - balance,
            rewards=self.rewards[at],
            policy_tokens=int(self.lengths[chosen].sum()) * policies,
        )


@torch.inference_mode()
def enumerate_all(engine: Engine) -> Exact:
    """By the policies' own forward passes over all prefixes, without the running batch."""
    policy_set = engine.policy_set
    prefixes = list(product(range(4), repeat=LENGTH - 1))
    responses = [(*p[:n], 4) for n in range(LENGTH) for p in sorted({prefix[:n] for prefix in prefixes})]
    responses += [(*prefix, last) for prefix in prefixes for last in range(4)]
    texts = [policy_set.text(list(response)) for response in responses]
    tables, even, rewards, following = [], [], [], []
    prefix_of = {prefix[:n]: i for i, prefix in enumerate(prefixes) for n in range(LENGTH)}
    rows = torch.tensor([prefix_of[response[:-1]] for response in responses])
    said = torch.tensor([[*response, *[0] * (LENGTH - len(response))] for response in responses])
    ended = torch.arange(LENGTH) >= torch.tensor([[len(response)] for response in responses])

    def totals(next_token: torch.Tensor) -> list[float]:
        """[prefixes, LENGTH, 5], after every part of a prefix -> the log-prob of every response"""
        each = next_token[rows].gather(-1, said[..., None])[..., 0]  # [responses, LENGTH]
        return each.masked_fill(ended, 0).sum(-1).tolist()

    for prompt in PROMPTS:
        ids = policy_set.prompt_ids(policy_set.policies[0], prompt)
        next_tokens = []
        for policy in policy_set.policies:
            read = policy_set.pad([[*ids, *prefix] for prefix in prefixes])
            logits = policy_set.forward(0, [policy] * len(prefixes), *read)[:, len(ids) - 1 :]
            next_tokens.append(logits.double().log_softmax(-1))
        tables.append(np.array([totals(one) for one in next_tokens]).T)
        alike = torch.stack(next_tokens[1:]).mean(0).log_softmax(-1)
        even.append(totals(alike))
        following.append(torch.stack([*next_tokens[1:], alike])[:, rows].numpy())
        rewards.append(np.array([[-len(text.split()), count_a(prompt, text)] for text in texts], dtype=float))
    lengths = np.array([len(response) for response in responses])
    return Exact(np.array(tables), np.array(rewards), texts, lengths, np.array(even), said.numpy(), np.array(following))


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
