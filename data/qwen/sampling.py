"""Sampling of training responses, several per prompt, written line by line so that an interruption loses little.

The engine can sample too, but processes a prompt once per response, which is a third of the time on two cores.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm
from transformers import DynamicCache, PreTrainedTokenizerBase

from data.qwen import layers


def choose(logits: Tensor, temperature: float, min_p: float, generator: torch.Generator) -> Tensor:
    """Sample a token of each row, [rows], from those at least `min_p` times as probable as the most probable."""
    probs = (logits.float() / temperature).softmax(-1)
    probs = probs.where(probs >= min_p * probs.amax(-1, keepdim=True), 0)
    return torch.multinomial(probs, 1, generator=generator)[:, 0]


@torch.inference_mode()
def respond(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    per_prompt: int,
    max_new_tokens: int,
    temperature: float,
    min_p: float,
    generator: torch.Generator,
) -> list[list[int]]:
    """Return the token ids of `per_prompt` responses to each prompt, grouped by prompt."""
    name = "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"
    prefixes = [layers.prefix_of(tokenizer, prompt) for prompt in prompts]
    longest = max(map(len, prefixes))
    ids = torch.tensor([[0] * (longest - len(prefix)) + prefix for prefix in prefixes])
    mask = torch.tensor([[0] * (longest - len(prefix)) + [1] * len(prefix) for prefix in prefixes])
    cache: Any = DynamicCache(config=model.config)
    settings: dict[str, Any] = {name: cache, "use_cache": True, "logits_to_keep": 1}
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    logits = model(input_ids=ids, attention_mask=mask, position_ids=positions, **settings).logits[:, -1]
    cache.batch_repeat_interleave(per_prompt)
    logits, mask = (tensor.repeat_interleave(per_prompt, 0) for tensor in (logits, mask))
    rows = torch.arange(len(logits))
    responses: list[list[int]] = [[] for _ in rows]
    for _ in range(max_new_tokens):
        tokens = choose(logits, temperature, min_p, generator)
        for row, token in zip(rows.tolist(), tokens.tolist(), strict=True):
            responses[row].append(token)
        going = tokens != tokenizer.eos_token_id
        if not going.any():
            break
        if not going.all():
            rows, tokens, mask = rows[going], tokens[going], mask[going]
            cache.batch_select_indices(going.nonzero()[:, 0])
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
        positions = mask.sum(-1, keepdim=True) - 1
        logits = model(input_ids=tokens[:, None], attention_mask=mask, position_ids=positions, **settings).logits[:, -1]
    return responses


def sample(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    per_prompt: int,
    out: Path,
    seed: int,
    max_new_tokens: int = 80,
    temperature: float = 0.9,
    min_p: float = 0.05,
    at_once: int = 24,
) -> list[dict[str, Any]]:
    """Sample responses into a JSONL file, one row per prompt; existing rows are kept.

    Returns:
        Rows in order: prompt, responses (texts), tokens (their ids, with the end of turn where it was sampled).
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    done = sum(1 for _ in out.open(encoding="utf-8")) if out.exists() else 0
    with out.open("a", encoding="utf-8") as file, tqdm(total=len(prompts), initial=done, unit="prompt") as bar:
        for start in range(done, len(prompts), at_once):
            part = prompts[start : start + at_once]
            generator = torch.Generator().manual_seed(seed + start)
            ids = respond(model, tokenizer, part, per_prompt, max_new_tokens, temperature, min_p, generator)
            for i, prompt in enumerate(part):
                own = ids[i * per_prompt : (i + 1) * per_prompt]
                texts = [tokenizer.decode(response, skip_special_tokens=True) for response in own]
                file.write(json.dumps({"prompt": prompt, "responses": texts, "tokens": own}) + "\n")
            file.flush()
            bar.update(len(part))
    with out.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]
