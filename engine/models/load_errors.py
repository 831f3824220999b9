"""Errors from loading a model as one line with a remedy."""

from __future__ import annotations

from typing import Any

from jinja2 import TemplateError, TemplateSyntaxError
from torch import nn
from transformers import PreTrainedTokenizerBase

from engine.errors import InputError, one_line

MOST_NAMES = 3  # tensors that a message names


def load_error(what: str, source: str, error: BaseException) -> InputError:
    """Return the InputError for an exception that loading `source` raised.

    Args:
        what: The kind of object, such as "a tokenizer".
        source: Its path or hub id.
        error: The exception. An InputError is returned unchanged.
    """
    return (
        error if isinstance(error, InputError) else InputError(f"cannot load {what} from '{source}': {explain(error)}")
    )


def explain(error: BaseException) -> str:
    """Return the reason of a library's error and a remedy."""
    text = one_line(error)
    lower = text.lower()
    if "trust_remote_code" in text or "contains custom code" in text:
        return (
            "it needs Python code of its own (auto_map in its configuration), which is never run here; give a model of "
            "a family that transformers has"
        )
    if isinstance(error, ImportError) or "quantiz" in lower or "bitsandbytes" in lower:
        return f"{text}; install what it asks for, or give the same model without quantisation"
    if "does not recognize this architecture" in text or "Unrecognized model" in text or "model_type" in text:
        return f"{text}; check model_type in its config.json, or install a version of transformers that knows it"
    if "size mismatch" in lower or "mismatched" in lower:
        return f"{text}; its config.json is that of another model: give the one that was saved with the weights"
    if any(
        word in lower for word in ("header", "safetensor", "pickle", "weights_only", "incomplete", "invalid load key")
    ):
        return f"{text}; its weights are damaged, incomplete or of another format: get them again, as safetensors"
    return f"{text}; give a folder as transformers saves it, or a hub id"


def check_weights(source: str, model: nn.Module, missing: Any = ()) -> None:
    """Check that a model's weights are complete and finite.

    Args:
        source: The path or hub id that they were read from.
        model: The model.
        missing: The names of tensors that the files lack, which transformers initialises randomly.

    Raises:
        InputError: A tensor is missing, or has NaN or infinite numbers.
    """
    if missing:
        raise InputError(
            f"cannot load '{source}': its files have no {_named(sorted(missing))}, which would be random; get it "
            "again, or give a model that was saved with its language modelling head"
        )
    broken = []
    for name, parameter in model.named_parameters():
        if parameter.is_floating_point() and parameter.numel() and not parameter.is_meta:
            # NaN in either where any is NaN; finite ends leave nothing infinite between them.
            low, high = parameter.detach().aminmax()
            if not (low.isfinite() and high.isfinite()):
                broken.append(name)
    if broken:
        raise InputError(
            f"cannot load '{source}': NaN or infinite numbers in {_named(broken)}; get it again, or give a checkpoint "
            "from before the training failed"
        )


def check_template(source: str, tokenizer: PreTrainedTokenizerBase) -> None:
    """Check the syntax of a tokenizer's chat template. Raises InputError."""
    try:
        if tokenizer.chat_template is not None:
            tokenizer.apply_chat_template([{"role": "user", "content": "Hello"}], tokenize=False)
    except TemplateSyntaxError as error:
        raise InputError(
            f"cannot load a tokenizer from '{source}': line {error.lineno} of its chat template: {one_line(error)}; "
            "mend chat_template.jinja, or chat_template in tokenizer_config.json"
        ) from None
    except (TemplateError, ValueError):
        pass  # one that refuses this message may take others


def _named(names: list[str]) -> str:
    rest = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", ".join(names[:MOST_NAMES]) + rest
