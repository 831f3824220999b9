"""What bounds a response by the models' own settings: stop tokens, context length, vocabulary."""

from __future__ import annotations

from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase


def stops_of(model: nn.Module) -> set[int]:
    """Return the tokens that end a turn according to a model's generation config."""
    settings = getattr(model, "generation_config", None)
    eos = settings.eos_token_id if settings else None
    return set(eos if isinstance(eos, list) else [] if eos is None else [eos])


def positions_of(model: PreTrainedModel) -> int:
    """Return the context length of a model up to which its cached keys remain valid; 2**31 without a limit."""
    config = model.config.get_text_config()
    found = getattr(config, "max_position_embeddings", None) or 2**31
    # Long RoPE turns all positions another way once a text is longer than this: nothing that was kept would be right.
    settings = getattr(config, "rope_parameters", None) or {}
    for rope in settings.values() if all(isinstance(value, dict) for value in settings.values()) else [settings]:
        if rope.get("rope_type") == "longrope":
            found = min(found, rope.get("original_max_position_embeddings") or found)
    return found


def shared_vocabulary(models: list[PreTrainedModel], tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Return the number of tokens to mix if the models' embeddings have different sizes; None if all are equal.

    Sizes differ by padding. The result is the tokenizer's number of tokens, or the smallest size if that is less.
    """
    sizes = {model.config.get_text_config().vocab_size for model in models}
    return min(max(tokenizer.get_vocab().values()) + 1, *sizes) if len(sizes) > 1 else None
