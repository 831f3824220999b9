"""Load models and tokenizers, and choose their device and data type."""

from __future__ import annotations

import logging
import re

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from engine.errors import InputError
from engine.models.gguf import folder_of
from engine.models.int8_linear import INT8, check_int8
from engine.models.load_errors import check_template, check_weights, load_error

log = logging.getLogger("mixdesk")


def pick_device(device: str) -> torch.device:
    """Return the device of a name; "auto" is a GPU if there is one. Raises InputError if torch sees no GPU."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d{1,3})?", device):
        raise InputError(f"device: found '{device}'; give auto, cpu, cuda or cuda:1")
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise InputError(f"device: found '{device}', but torch sees no GPU here; give auto or cpu")
    return torch.device(device)


def multiplies_bfloat16() -> bool:
    """Return whether this CPU multiplies bfloat16, in which a step takes 0.6 times as long, and half the memory.

    On other CPUs 16 bits save no time.
    """
    return any(getattr(torch.cpu, name, bool)() for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))


def pick_dtype(dtype: str, device: torch.device) -> torch.dtype | str:
    """Return the dtype of a name, in which weights are loaded.

    "auto" is the stored one, except float32 on a CPU that does not multiply bfloat16; "int8" is float32, until linears
    are rounded (engine/models/int8_linear.py). Raises InputError if int8 cannot be used here.
    """
    if dtype == INT8:
        if device.type != "cpu":
            raise InputError(f"dtype: int8 is for a CPU, and the device is {device}; give auto, or 'device: cpu'")
        check_int8()
        return torch.float32
    if dtype == "auto":
        return "auto" if device.type != "cpu" or multiplies_bfloat16() else torch.float32
    return getattr(torch, dtype)


def load_tokenizer(source: str) -> PreTrainedTokenizerBase:
    """Load a tokenizer from a path or hub id. Raises InputError."""
    folder = folder_of(source)
    try:
        # Said outright, or transformers asks at the terminal whether to run the code of a repository.
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        check_template(source, tokenizer)
        return tokenizer
    except Exception as error:  # whatever its libraries raise on a damaged file
        raise load_error("a tokenizer", source, error) from None


def load_model(source: str, dtype: str, device: torch.device) -> PreTrainedModel:
    """Load a causal language model on a device.

    If there are several GPUs and the device names none of them, accelerate spreads the model over all.

    Args:
        source: A path or hub id.
        dtype: See `pick_dtype`.
        device: The device.

    Raises:
        InputError: The model cannot be loaded, or its weights are incomplete or not finite.
    """
    spread = device.type == "cuda" and device.index is None and torch.cuda.device_count() > 1
    picked = pick_dtype(dtype, device)
    folder = folder_of(source, picked)
    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=picked,
            device_map="auto" if spread else None,
            output_loading_info=True,
            trust_remote_code=False,
        )
        check_weights(source, model, info["missing_keys"])
        if dtype == "auto" and device.type == "cpu" and model.dtype == torch.float16:
            model = model.float()  # of 16 bit a CPU multiplies bfloat16 alone, and to round to that would lose bits
        return model if spread else model.to(device)
    except Exception as error:
        raise load_error("a language model", source, error) from None
