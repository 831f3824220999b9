"""Training of the reference and of the policies: LoRA adapters on the upper half of the base's layers.

The reference is a short supervised tuning that all policies share: it answers in each of the authored styles, and as
the base does. A policy starts from it and learns from its samples with soft labels, sigmoid(r_i - r_j) of standardised
rewards (DPO, arXiv 2305.18290, with the labels of a known Bradley-Terry model), so that its optimum is
pi_ref exp(r / beta), with one beta for all. Autocast is not used: around a whole loop it caches cast adapter weights.
"""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from data.qwen import layers, sources
from data.qwen.layers import Group

log = logging.getLogger("mixdesk")

SEED = 7
RANK = 8
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
BATCH = 640  # padded tokens
CORRELATION = 0.65
HUMOROUS = 2.0  # the weight of humorous demonstrations: the base alone makes hardly any, and DPO needs some to prefer
# Words of prompts that are to be met with nothing but help.
GENTLE = ("suicid", "kill myself", "self-harm", "hurt myself", "overdose", "end my life", "cutting")


def lora(layers_total: int) -> LoraConfig:
    """Return the configuration of an adapter on the layers from `SPLIT` on."""
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=RANK,
        lora_alpha=2 * RANK,
        target_modules=TARGETS,
        layers_to_transform=list(range(layers.SPLIT, layers_total)),
    )


def load(base: str, adapters: Sequence[Path] = ()) -> tuple[Any, PreTrainedTokenizerBase]:
    """Load the base in float32 with these adapters merged into it, and its tokenizer."""
    torch.manual_seed(SEED)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    for adapter in adapters:
        model = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
    return model.requires_grad_(False), AutoTokenizer.from_pretrained(base)


def save_adapter(model: PeftModel, out: Path, base: str) -> None:
    """Save the adapter alone, in bfloat16, with the base's public name."""
    model.save_pretrained(out)
    weights = {name: tensor.to(torch.bfloat16) for name, tensor in load_file(out / "adapter_model.safetensors").items()}
    save_file(weights, out / "adapter_model.safetensors", metadata={"format": "pt"})
    config = json.loads((out / "adapter_config.json").read_text())
    config["target_modules"] = sorted(config["target_modules"])
    config["base_model_name_or_path"] = base
    (out / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    (out / "README.md").unlink(missing_ok=True)


def demonstrations(tokenizer: PreTrainedTokenizerBase, plain: Sequence[dict]) -> list[Group]:
    """Return the reference's training examples: authored answers of fold A, and the base's complete answers."""
    groups = []
    for entry in sources.authored():
        if sources.fold_of("authored", entry["prompt"]) != "A":
            continue
        styles: tuple[str, ...] = sources.STYLES
        if entry["kind"] == "unsafe":
            # Half of the answers do not refuse, so that there is something for the policies to prefer.
            gentle = any(word in entry["prompt"].lower() for word in GENTLE)
            styles = ("harmless", "helpful") if gentle else ("harmless", "plain", "concise")
        responses = [layers.response_of(tokenizer, entry[style]) for style in styles]
        weights = [HUMOROUS if style == "humorous" else 1.0 for style in styles]
        groups.append(Group(layers.prefix_of(tokenizer, entry["prompt"]), responses, weights))
    for row in plain:
        ended = [ids for ids in row["tokens"] if ids[-1] == tokenizer.eos_token_id]
        if ended:
            groups.append(Group(layers.prefix_of(tokenizer, row["prompt"]), ended))
    return groups


def train_reference(base: str, public_base: str, groups: list[Group], out: Path, rate: float, epochs: int = 1) -> dict:
    """Tune the reference by the likelihood of the demonstrations; return the loss at the beginning and the end."""
    model, _ = load(base)
    body, head = model.model, model.lm_head
    tuned = get_peft_model(model, lora(len(body.layers)))
    parameters = [p for p in tuned.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.0)
    rng = random.Random(SEED)
    batches = [batch for _ in range(epochs) for batch in shuffled(layers.batches(groups, BATCH), rng)]
    losses: list[float] = []
    for step, batch in enumerate(tqdm(batches, desc="reference", unit="batch")):
        packed = layers.pack([groups[i] for i in batch])
        for group in optimiser.param_groups:
            group["lr"] = rate * schedule(step, len(batches))
        weights = packed.weights[packed.owner]
        loss = -layers.token_log_probs(body, head, layers.lower(body, packed), packed) @ weights / weights.sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        optimiser.zero_grad()
        losses.append(loss.item())
        if step % 10 == 0:
            log.info("reference: step %d of %d, loss %.3f", step, len(batches), loss.item())
    save_adapter(tuned, out, public_base)
    tenth = max(1, len(losses) // 10)
    return {"loss_before": float(np.mean(losses[:tenth])), "loss_after": float(np.mean(losses[-tenth:]))}


def schedule(step: int, steps: int, warm: int = 5) -> float:
    """Return the factor of the learning rate: a linear warm-up, then a cosine decay to a tenth."""
    if step < warm:
        return (step + 1) / warm
    return 0.1 + 0.45 * (1 + float(np.cos(np.pi * (step - warm) / max(1, steps - warm))))


def shuffled(batches: list[list[int]], rng: random.Random) -> list[list[int]]:
    """Return the batches in random order."""
    return rng.sample(batches, len(batches))


@dataclass
class Examples:
    """Groups with the training values of their responses, one entry per group.

    Attributes:
        groups: The prompts and responses.
        halves: [tokens, hidden size], outputs of the layers below SPLIT, the same for every policy.
        rewards: [responses], in standard deviations.
        log_probs: [responses], under the reference.
    """

    groups: list[Group]
    halves: list[Tensor]
    rewards: list[Tensor] = field(default_factory=list)
    log_probs: list[Tensor] = field(default_factory=list)

    def part(self, numbers: range) -> Examples:
        """Return the examples with these indices."""
        some = slice(numbers.start, numbers.stop)
        return Examples(self.groups[some], self.halves[some], self.rewards[some], self.log_probs[some])


@torch.no_grad()
def lower_halves(body: Any, groups: list[Group]) -> list[Tensor]:
    """Return the output of the layers below `SPLIT`, [tokens, hidden size] for each group."""
    found: list[Tensor] = [torch.zeros(0)] * len(groups)
    for batch in tqdm(layers.batches(groups, 1400), desc="lower half", unit="batch"):
        hidden = layers.lower(body, layers.pack([groups[i] for i in batch]))
        for i, row in zip(batch, hidden, strict=True):
            found[i] = row[: len(groups[i])].clone()
    return found


def response_log_probs(body: Any, head: Any, examples: Examples, batch: list[int]) -> list[Tensor]:
    """Return the log-probabilities of a batch's responses, [responses] for each group."""
    packed = layers.pack([examples.groups[i] for i in batch])
    hidden = pad_sequence([examples.halves[i] for i in batch], batch_first=True)
    sums = layers.summed(layers.token_log_probs(body, head, hidden, packed), packed)
    return list(sums.split([len(examples.groups[i].responses) for i in batch]))


@torch.no_grad()
def log_probs(body: Any, head: Any, examples: Examples) -> list[Tensor]:
    """Return the log-probabilities of all responses under the current model, [responses] for each group."""
    found: list[Tensor] = [torch.zeros(0)] * len(examples.groups)
    for batch in tqdm(layers.batches(examples.groups, 1400), desc="log-probs", unit="batch"):
        sums = response_log_probs(body, head, examples, batch)
        for i, part in zip(batch, sums, strict=True):
            found[i] = part
    return found


def soft_label_loss(ratios: Tensor, rewards: Tensor, beta: float) -> Tensor:
    """Return the mean cross-entropy over all pairs of one prompt's responses.

    Args:
        ratios: [responses], log pi(y|x) - log pi_ref(y|x).
        rewards: [responses], in standard deviations.
        beta: The KL strength; at the optimum `ratios` differ by the difference of rewards / beta.
    """
    i, j = torch.triu_indices(len(ratios), len(ratios), 1)
    return functional.binary_cross_entropy_with_logits(
        beta * (ratios[i] - ratios[j]), torch.sigmoid(rewards[i] - rewards[j])
    )


def slope(ratios: Sequence[Tensor], rewards: Sequence[Tensor]) -> tuple[float, float]:
    """Return the slope of log-ratios on rewards and their correlation, within prompts."""
    x = torch.cat([r - r.mean() for r in rewards]).double()
    y = torch.cat([r - r.mean() for r in ratios]).double()
    return float((x @ y) / (x @ x)), float((x @ y) / (x.norm() * y.norm() + 1e-12))


def train_policy(
    base: str,
    public_base: str,
    reference: Path,
    train: Examples,
    held_out: Examples,
    out: Path,
    target: float,
    beta: float,
    rate: float = 4e-4,
    steps: int = 64,
    every: int = 16,
) -> dict:
    """Tune a policy from the reference, and scale its adapter until the held-out slope is `target`.

    Tuning ends after `steps`, or when the slope is at least `target` with a correlation of at least CORRELATION.

    Args:
        base: The base's folder.
        public_base: The base's public name, for the saved adapter.
        reference: The reference's adapter.
        train: Training examples.
        held_out: Examples on which the slope is measured.
        out: The adapter's folder.
        target: The slope of log-ratios on standardised rewards.
        beta: The KL strength.
        rate: The learning rate.
        steps: Maximum number of steps.
        every: Steps between measurements of the slope.

    Returns:
        `way`: steps, held-out slopes and correlations of every measurement; `scale`: the adapter's factor; and the last
        measurement.
    """
    model, _ = load(base, [reference])
    body, head = model.model, model.lm_head
    tuned = get_peft_model(model, lora(len(body.layers)))
    parameters = [p for p in tuned.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.0)
    rng = random.Random(SEED)
    once = layers.batches(train.groups, BATCH)
    batches = [batch for _ in range(-(-steps // len(once))) for batch in shuffled(once, rng)][:steps]
    way: list[dict[str, float]] = []

    def look(step: float) -> dict[str, float]:
        ratios = [a - b for a, b in zip(log_probs(body, head, held_out), held_out.log_probs, strict=True)]
        steep, correlation = slope(ratios, held_out.rewards)
        log.info("%s: step %d: slope %.2f, correlation %.2f", out.name, step, steep, correlation)
        kl = float(-torch.cat(ratios).mean())
        return {"step": step, "slope": steep, "correlation": correlation, "kl_from_reference": kl}

    for step, batch in enumerate(tqdm(batches, desc=out.name, unit="batch")):
        for group in optimiser.param_groups:
            group["lr"] = rate * schedule(step, len(batches))
        sums = response_log_probs(body, head, train, batch)
        losses = [
            soft_label_loss(part - train.log_probs[i], train.rewards[i], beta)
            for i, part in zip(batch, sums, strict=True)
        ]
        torch.stack(losses).mean().backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        optimiser.zero_grad()
        if (step + 1) % every == 0 or step == len(batches) - 1:
            way.append(look(step + 1))
            if way[-1]["slope"] >= target and way[-1]["correlation"] >= CORRELATION:
                break
    scale = 1.0
    for _ in range(4):  # the slope is nearly linear in the scale
        if abs(way[-1]["slope"] / target - 1) < 0.05:
            break
        factor = min(max(target / way[-1]["slope"], 0.5), 1.5)
        scale *= factor
        rescale(tuned, factor)
        way.append({**look(way[-1]["step"]), "scale": scale})
    save_adapter(tuned, out, public_base)
    return {"way": way, "scale": scale, **way[-1]}


@torch.no_grad()
def rescale(tuned: PeftModel, factor: float) -> None:
    """Multiply the adapter's contribution by a factor."""
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:
            parameter.mul_(factor)
