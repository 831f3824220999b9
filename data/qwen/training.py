"""Training of the reference and of the policies: LoRA adapters on the upper half of the base's layers.

The reference is a short supervised tuning that all policies share: it answers in each of the authored styles, and as
the base does. A policy starts from it and learns from its samples with soft labels, sigmoid(r_i - r_j) of standardised
rewards (DPO, arXiv 2305.18290, with the labels of a known Bradley-Terry model), so that its optimum is
pi_ref exp(r / beta), with one beta for all. No autocast: around a whole loop it caches cast weights of adapters.
"""

from __future__ import annotations

import json
import logging
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from data.qwen import layers, sources
from data.qwen.layers import Group

log = logging.getLogger("mixdesk")

SEED = 7
RANK = 8
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
BATCH = 640  # padded tokens
HUMOROUS = 2.0  # the weight of humorous demonstrations: the base alone makes hardly any, and DPO needs some to prefer
# Words of prompts that are to be met with nothing but help.
GENTLE = ("suicid", "kill myself", "self-harm", "hurt myself", "overdose", "end my life", "cutting")


def lora(layers_total: int, rank: int = RANK, split: int | None = None) -> LoraConfig:
    """Return the settings of an adapter on the layers from `split` (layers.SPLIT unless given) up."""
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=rank,
        lora_alpha=2 * rank,
        target_modules=TARGETS,
        layers_to_transform=list(range(layers.SPLIT if split is None else split, layers_total)),
    )


def load(base: str, adapters: Sequence[Path] = ()) -> tuple[Any, PreTrainedTokenizerBase]:
    """Load the base in float32 with these adapters merged into it."""
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
    """What the reference learns from: the authored answers of fold A in all styles, and the base's own."""
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
    """Tune the reference by the likelihood of the demonstrations; returns the loss at the beginning and the end."""
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
    """Return the share of the learning rate: a short rise, then a cosine to a tenth."""
    if step < warm:
        return (step + 1) / warm
    return 0.1 + 0.45 * (1 + float(np.cos(np.pi * (step - warm) / max(1, steps - warm))))


def shuffled(batches: list[list[int]], rng: random.Random) -> list[list[int]]:
    return rng.sample(batches, len(batches))


@torch.no_grad()
def reference_log_probs(body: Any, head: Any, groups: list[Group], split: int | None = None) -> list[Tensor]:
    """Return the summed log-probability of each group's responses under the model as it is."""
    found: list[Tensor] = [torch.zeros(0)] * len(groups)
    for batch in tqdm(layers.batches(groups, 1400), desc="reference log-probs", unit="batch"):
        packed = layers.pack([groups[i] for i in batch])
        hidden = layers.lower(body, packed, split)
        sums = layers.summed(layers.token_log_probs(body, head, hidden, packed, split), packed)
        for i, part in zip(batch, sums.split([len(groups[i].responses) for i in batch]), strict=True):
            found[i] = part
    return found


def soft_label_loss(ratios: Tensor, rewards: Tensor, beta: float) -> Tensor:
    """Return the mean cross-entropy of all pairs of one prompt's responses.

    Args:
        ratios: [responses], log pi(y|x) - log pi_ref(y|x).
        rewards: [responses], in standard deviations.
        beta: the KL strength; at the optimum `ratios` differ by the difference of rewards / beta.
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
    reference: Path | None,
    train: tuple[list[Group], list[Tensor], list[Tensor]],
    held_out: tuple[list[Group], list[Tensor], list[Tensor]],
    out: Path,
    target: float,
    beta: float = 0.25,
    rate: float = 4e-4,
    epochs: int = 2,
    every: int = 12,
    minutes: float = 60,
    batch_tokens: int = BATCH,
    rank: int = RANK,
    split: int | None = None,
    state: Path | None = None,
) -> dict:
    """Tune a policy from the reference until its held-out slope is `target`.

    Args:
        train, held_out: groups, the standardised rewards of their responses, and these' log-probabilities under the
            reference.
        reference: the adapter that is the reference; none means the base itself.
        every: steps between two looks at the held-out slope.
        minutes: the time after which it stops wherever it is.
        batch_tokens: padded tokens of a step.
        split: the lowest layer with an adapter; layers.SPLIT unless given.
        state: a file for the state at every look, from which an interrupted run resumes.

    Returns:
        The way: steps, held-out slopes and correlations.
    """
    model, _ = load(base, [] if reference is None else [reference])
    body, head = model.model, model.lm_head
    tuned = get_peft_model(model, lora(len(body.layers), rank, split))
    parameters = [p for p in tuned.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.0)
    rng = random.Random(SEED)
    batches = [batch for _ in range(epochs) for batch in shuffled(layers.batches(train[0], batch_tokens), rng)]
    way: list[dict[str, float]] = []
    if state is not None and state.exists():
        saved = torch.load(state)
        way = saved["way"]
        optimiser.load_state_dict(saved["optimiser"])
        for parameter, value in zip(parameters, saved["parameters"], strict=True):
            parameter.data.copy_(value)
    done = int(way[-1]["step"]) if way else 0
    began = time.monotonic()
    for step, batch in enumerate(tqdm(batches, desc=out.name, unit="batch")):
        if step < done:
            continue
        packed = layers.pack([train[0][i] for i in batch])
        for group in optimiser.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / 5)
        hidden = layers.lower(body, packed, split)
        sums = layers.summed(layers.token_log_probs(body, head, hidden, packed, split), packed)
        parts = sums.split([len(train[0][i].responses) for i in batch])
        losses = [soft_label_loss(part - train[2][i], train[1][i], beta) for i, part in zip(batch, parts, strict=True)]
        torch.stack(losses).mean().backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        optimiser.zero_grad()
        last = step == len(batches) - 1 or time.monotonic() - began > 60 * minutes
        if (step + 1) % every == 0 or last:
            now = reference_log_probs(body, head, held_out[0], split)
            ratios = [a - b for a, b in zip(now, held_out[2], strict=True)]
            steep, correlation = slope(ratios, held_out[1])
            kl = float(-torch.cat(ratios).mean())
            way.append({"step": step + 1, "slope": steep, "correlation": correlation, "kl_from_reference": kl})
            log.info("%s: step %d: slope %.2f, correlation %.2f", out.name, step + 1, steep, correlation)
            if state is not None:
                saved = {"way": way, "optimiser": optimiser.state_dict(), "parameters": [p.data for p in parameters]}
                torch.save(saved, state)
            if steep >= target or last:
                break
    save_adapter(tuned, out, public_base)
    return {"way": way, **way[-1]}
