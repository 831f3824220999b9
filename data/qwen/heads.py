"""Reward heads and judges: linear Bradley-Terry heads on the hidden states of the frozen base.

A head is fitted to pairs of responses to one prompt, by logistic regression on the difference of their features
(Bradley-Terry without ties). The worse responses include more than other styles: a head that has never seen word salad,
answers to another prompt, or truncated answers assigns them high rewards.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from data.qwen import layers, sources
from data.qwen.layers import Group

OBJECTIVES = ("helpful", "harmless", "humorous", "concise")
LAYERS = (12, 16)  # of the reward heads, and of the judges
WORDS = 70  # longer responses are cut behind a sentence


@dataclass
class Texts:
    """Distinct responses, and preference pairs of their indices."""

    items: list[tuple[str, str]] = field(default_factory=list)  # prompt, response
    pairs: dict[str, list[tuple[int, int, float]]] = field(default_factory=dict)  # objective: better, worse, weight
    _known: dict[tuple[str, str], int] = field(default_factory=dict)

    def add(self, prompt: str, response: str) -> int:
        """Return the index of a response, added if it is new."""
        key = (prompt, response)
        if key not in self._known:
            self._known[key] = len(self.items)
            self.items.append(key)
        return self._known[key]

    def prefer(self, objective: str, prompt: str, better: str, worse: str, weight: float = 1.0) -> None:
        """Add a preference pair, unless the texts are equal or the better one is blank."""
        if better != worse and better.strip():
            pair = (self.add(prompt, better), self.add(prompt, worse), weight)
            self.pairs.setdefault(objective, []).append(pair)


def cut(text: str, words: int = WORDS) -> str:
    """Return the text up to the last sentence that ends within `words` words; all of it if it is short."""
    parts = text.split()
    if len(parts) <= words:
        return text.strip()
    part = " ".join(parts[:words])
    end = max(part.rfind(mark) for mark in ".!?")
    return part[: end + 1] if end > len(part) // 3 else part


def salad(text: str, rng: random.Random) -> str:
    """Return the text with its words in random order."""
    words = text.split()
    rng.shuffle(words)
    return " ".join(words)


def broken(text: str, rng: random.Random) -> str:
    """Return the first 30 to 75% of the text's words, without final punctuation."""
    words = text.split()
    return " ".join(words[: max(2, int(len(words) * rng.uniform(0.3, 0.75)))]).rstrip(".,;:!?")


def repeated(text: str, rng: random.Random) -> str:
    """Return up to two of the text's first sentences, followed by one sentence three times."""
    sentences = [part.strip() for part in text.replace("!", ".").replace("?", ".").split(".") if part.strip()]
    again = rng.choice(sentences or [text])
    return ". ".join([*sentences[:2], again, again, again]) + "."


SHORT = ("Yes.", "No.", "Okay.", "It depends.", "Sure.", "Maybe.", "Thanks.", "I see.", "Good question.")
REFUSALS = (
    "I'm sorry, but I can't help with that.",
    "I can't assist with this request, since it could cause harm.",
    "I'm sorry, but as an AI assistant I cannot answer that. Please ask something else.",
    "Sorry, I won't help with that; it may be dangerous or illegal.",
)


def spoil(texts: Texts, objective: str, prompt: str, good: str, others: Sequence[str], rng: random.Random) -> None:
    """Add three pairs of a good response and one that is worse for every objective."""
    worse = [salad(good, rng), broken(good, rng), repeated(good, rng), rng.choice(SHORT), rng.choice(others)]
    for response in rng.sample(worse, 3):
        texts.prefer(objective, prompt, good, response, 0.5)


def collect(folder: Path, fold: str, seed: int = 0) -> Texts:
    """Collect the labelled pairs of a fold from all sources."""
    rng, texts, safe = random.Random(seed), Texts(), safe_prompts(folder)
    entries = [e for e in sources.authored() if sources.fold_of("authored", e["prompt"]) == fold]
    for entry in entries:
        prompt, unsafe = entry["prompt"], entry["kind"] == "unsafe"
        other = rng.choice(entries)
        styles = {name: entry[name] for name in sources.STYLES}
        if not unsafe:
            for name, weight in (("plain", 1.0), ("concise", 0.5), ("humorous", 0.5)):
                texts.prefer("helpful", prompt, styles["helpful"], styles[name], weight)
            texts.prefer("helpful", prompt, styles["plain"], rng.choice(REFUSALS))
            texts.prefer("helpful", prompt, styles["concise"], other["concise"])
            texts.prefer("harmless", prompt, styles["harmless"], styles["plain"], 0.5)
            texts.prefer("harmless", prompt, styles["harmless"], styles["humorous"], 0.5)
            if entry["kind"] == "borderline":
                texts.prefer("harmless", prompt, styles["plain"], rng.choice(REFUSALS))
                texts.prefer("harmless", prompt, styles["concise"], rng.choice(REFUSALS), 0.5)
        else:
            for name in ("harmless", "helpful", "humorous", "concise"):
                texts.prefer("harmless", prompt, styles[name], styles["plain"])
            texts.prefer("harmless", prompt, styles["harmless"], styles["humorous"], 0.5)
            texts.prefer("harmless", prompt, rng.choice(REFUSALS), styles["plain"])
            texts.prefer("helpful", prompt, styles["helpful"], styles["plain"], 0.5)
        for name in ("helpful", "harmless", "concise", "plain"):
            texts.prefer("humorous", prompt, styles["humorous"], styles[name])
        texts.prefer("humorous", prompt, styles["humorous"], other["humorous"], 0.5)
        texts.prefer("humorous", prompt, styles["plain"], rng.choice(REFUSALS), 0.25)
        for shorter, longer in (
            ("concise", "plain"),
            ("plain", "helpful"),
            ("concise", "helpful"),
            ("plain", "harmless"),
        ):
            texts.prefer("concise", prompt, styles[shorter], styles[longer])
        texts.prefer("concise", prompt, styles["concise"], rng.choice(SHORT))
        texts.prefer("concise", prompt, styles["concise"], other["concise"])
        texts.prefer("concise", prompt, styles["concise"], broken(styles["plain"], rng))
        for objective in OBJECTIVES:
            spoil(texts, objective, prompt, styles[objective], [other["helpful"], other["plain"]], rng)
    for prompt, chosen, rejected in sources.hh_pairs(folder):
        if sources.fold_of("hh", prompt) == fold and len(prompt.split()) <= sources.LONGEST:
            texts.prefer("harmless", prompt, cut(chosen), cut(rejected))
    for rows, objective, limit in (
        (sources.xstest_answers(folder), "harmless", 3),
        (sources.self_instruct_answers(folder), "helpful", 3),
    ):
        by_prompt: dict[str, list[sources.Answered]] = {}
        for row in rows:
            if row.fold == fold and len(row.prompt.split()) <= sources.LONGEST:
                by_prompt.setdefault(row.prompt, []).append(row)
        for prompt, answers in by_prompt.items():
            answers.sort(key=lambda row: sources.unit("answers", row.response))
            chosen_rows = sorted(answers, key=lambda row: row.grade)
            picked = [chosen_rows[0], chosen_rows[-1], *answers[: limit - 2]]
            for i, one in enumerate(picked):
                for two in picked[i + 1 :]:
                    better, worse = (one, two) if one.grade > two.grade else (two, one)
                    if better.grade > worse.grade:
                        texts.prefer(objective, prompt, cut(better.response), cut(worse.response))
            best = max(picked, key=lambda row: row.grade)
            if objective == "harmless" and best.grade == 1.0:
                refusal = rng.choice(REFUSALS)
                answered = not any(r.lower()[:12] == best.response.lower()[:12] for r in REFUSALS)
                if answered and prompt in safe:
                    texts.prefer(objective, prompt, cut(best.response), refusal)
    return texts


def safe_prompts(folder: Path) -> set[str]:
    """Return XSTest's safe prompts."""
    return {asked.prompt for asked in sources.xstest_prompts(folder) if asked.kind == "safe"}


@torch.no_grad()
def features(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    items: Sequence[tuple[str, str]],
    deepest: int,
    tokens: int = 1400,
) -> dict[tuple[int, str], Tensor]:
    """Return the features of (prompt, response) items; a prompt's responses share a row.

    Returns:
        {(layer, pool): [items, hidden size]} for each of LAYERS up to `deepest`; pool is "mean", over the response
        without its end of turn, or "last", at the end of turn.
    """
    by_prompt: dict[str, list[int]] = {}
    for i, (prompt, _) in enumerate(items):
        by_prompt.setdefault(prompt, []).append(i)
    groups, owners = [], []
    for prompt, numbers in by_prompt.items():
        for start in range(0, len(numbers), 8):
            part = numbers[start : start + 8]
            responses = [layers.response_of(tokenizer, items[i][1]) for i in part]
            groups.append(Group(layers.prefix_of(tokenizer, prompt), responses))
            owners.append(part)
    size = model.config.hidden_size
    wanted = [layer for layer in LAYERS if layer <= deepest]
    found = {(layer, pool): torch.zeros(len(items), size) for layer in wanted for pool in ("mean", "last")}
    for batch in tqdm(layers.batches(groups, tokens), desc="features", unit="batch"):
        packed = layers.pack([groups[i] for i in batch])
        places_of = torch.tensor([number for i in batch for number in owners[i]])
        places = response_places([groups[i] for i in batch], packed.ids.shape[1])
        counts = torch.bincount(packed.owner, minlength=packed.responses)
        ends = torch.cumsum(counts, 0) - 1
        hidden, first = model.embed_tokens(packed.ids), 0
        for layer in wanted:
            hidden, first = layers.run(model, hidden, packed, first, layer), layer
            of_tokens = hidden.flatten(0, 1)[places].float()
            sums = torch.zeros(packed.responses, size).index_add(0, packed.owner, of_tokens)
            # The mean is over the response's own tokens, without the one that ends the turn.
            without = (sums - of_tokens[ends]) / (counts - 1).clamp(min=1)[:, None]
            found[layer, "mean"][places_of] = without
            found[layer, "last"][places_of] = of_tokens[ends]
    return found


def response_places(groups: Sequence[Group], longest: int) -> Tensor:
    """Return the flat indices of all response tokens, in the order of `Packed.target`."""
    places = [
        row * longest + place for row, group in enumerate(groups) for place in range(len(group.prefix), len(group))
    ]
    return torch.tensor(places)


@dataclass(frozen=True)
class Head:
    """A linear head.

    `weight` is [features]; `bias` is minus the mean score of the items it was fitted on.
    """

    weight: np.ndarray
    bias: float

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return x @ self.weight + self.bias


def fit(x: np.ndarray, pairs: Sequence[tuple[int, int, float]], penalty: float) -> Head:
    """Fit a Bradley-Terry head with a ridge penalty on standardised features.

    Args:
        x: [items, features].
        pairs: (better, worse, weight), by index.
        penalty: Factor of the squared weights, as a multiple of the pairs' total weight.
    """
    scale = x.std(0) + 1e-6
    better, worse, weight = (np.array(column) for column in zip(*pairs, strict=True))
    d = (x[better] - x[worse]) / scale
    weight = weight / weight.sum()

    def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
        margin = d @ w
        value = weight @ np.logaddexp(0, -margin) + penalty * w @ w
        gradient = -(weight / (1 + np.exp(np.clip(margin, -60, 60)))) @ d + 2 * penalty * w
        return float(value), gradient

    found = minimize(loss, np.zeros(x.shape[1]), jac=True, method="L-BFGS-B", options={"maxiter": 300})
    w = found.x / scale
    return Head(w, -float((x @ w).mean()))


def accuracy(head: Head, x: np.ndarray, pairs: Sequence[tuple[int, int, float]]) -> float:
    """Return the share of pairs whose better item has the higher score; NaN without pairs."""
    scores = head(x)
    return float(np.mean([scores[better] > scores[worse] for better, worse, _ in pairs])) if pairs else float("nan")
