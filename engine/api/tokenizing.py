"""Answers to /tokenize, /detokenize and /tokenizer_info, as vLLM gives them and lm-evaluation-harness reads them."""

from __future__ import annotations

from typing import Any

from engine.api.calls import engine_errors
from engine.api.completion_fields import DetokenizeFields, TokenizeFields
from engine.inference.engine import Engine


def tokenize(engine: Engine, fields: TokenizeFields) -> dict[str, Any]:
    """Return the token ids of a text. Raises ApiError."""
    with engine_errors():
        tokens = engine.tokenize(fields.prompt, add_special_tokens=fields.add_special_tokens is not False)
    return {"count": len(tokens), "max_model_len": engine.policy_set.context, "tokens": tokens, "token_strs": None}


def detokenize(engine: Engine, fields: DetokenizeFields) -> dict[str, Any]:
    """Return the text of token ids. Raises ApiError."""
    with engine_errors():
        return {"prompt": engine.detokenize(fields.tokens)}


def tokenizer_info(engine: Engine) -> dict[str, Any]:
    """Return what clients need to know of the tokenizer."""
    tokenizer = engine.policy_set.tokenizer
    special = {f"{name}_token": getattr(tokenizer, f"{name}_token") for name in ("bos", "eos", "pad", "unk")}
    return {
        "tokenizer_class": type(tokenizer).__name__,
        "vocab_size": len(tokenizer),
        "model_max_length": engine.policy_set.context,
        "chat_template": engine.policy_set.chat.template,
        **special,
    }
