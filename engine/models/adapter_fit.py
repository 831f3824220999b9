"""Fit adapters to their base: names, shapes, target modules, and parts that were subtracted from the base's weights."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from engine.errors import InputError
from engine.models.adapter_files import Lora, Pair, Unfoldable, constant, is_targeted, joined_pairs, lora_scale
from engine.models.linear_layout import LINEARS, Layout, weight_of

MEND = "give an adapter that was trained from this base"


@torch.no_grad()
def fit_adapter(model: nn.Module, lora: Lora) -> tuple[Lora, list[str]]:
    """Return the adapter with the model's names, as changes of the model's weights, and notes on it.

    Raises:
        InputError: the adapter was trained from another base.
        Unfoldable: a module is not a linear.
    """
    known = dict(model.named_modules())
    modules, notes, skipped = {}, [], []
    for name, pair in lora.modules.items():
        place = located_linear(known, name)
        if place is None:
            if converts(model):
                raise Unfoldable(f"the base has no {name}, but may have had it under another name")
            raise InputError(f"adapter '{lora.source}' is for another base: the base has no {name}; {MEND}")
        module = known[place]
        if type(module) not in LINEARS:
            raise Unfoldable(f"{place} is a {type(module).__name__}")
        out_features, in_features = weight_of(module).shape
        if (in_features, out_features) != (pair.down.shape[1], pair.up.shape[0]):
            raise InputError(
                f"adapter '{lora.source}' is for another base: {place} is {in_features} to "
                f"{out_features}, the adapter's {pair.down.shape[1]} to {pair.up.shape[0]}; {MEND}"
            )
        if not targeted(lora, place):
            skipped.append(place)
        else:
            modules[place] = without_start(model, lora, place, pair)
    if not modules:
        raise InputError(
            f"adapter '{lora.source}': target_modules in adapter_config.json names none of its weights' modules, such "
            f"as {skipped[0]}; name them there"
        )
    if skipped:
        notes.append(f"its target_modules leave out {len(skipped)} of its weights' modules, such as {skipped[0]}")
    if lora.settings.get("target_modules") not in (None, "all-linear"):
        wanted = [name for name, module in known.items() if type(module) in LINEARS and targeted(lora, name)]
        missing = [name for name in wanted if name not in modules]
        if missing:
            notes.append(
                f"it has no weights for {len(missing)} of the {len(wanted)} linears that its target_modules name, such "
                f"as {missing[0]}: they stay the base's"
            )
    return replace(lora, modules=modules, saved=replaced(model, known, lora)), notes


def fit_to_fold(model: nn.Module, lora: Lora, layout: Layout) -> tuple[Lora, list[str]]:
    """Return the adapter as changes of linears that can be folded, without saved parameters, and notes on it.

    Raises:
        InputError: the adapter was trained from another base.
        Unfoldable: the adapter needs the general path.
    """
    fitted, notes = fit_adapter(model, lora)
    pairs = {name: [pair] for name, pair in fitted.modules.items()}
    config: Any = model.config
    if lora.settings.get("ensure_weight_tying") and getattr(config.get_text_config(), "tie_word_embeddings", False):
        raise Unfoldable("it uses ensure_weight_tying")
    kept = lora.settings.get("modules_to_save") or []
    for name, tensor in fitted.saved.items():
        owner, _, attribute = name.rpartition(".")
        module = model.get_submodule(owner)
        own_copy = any(owner == one or owner.endswith(f".{one}") for one in kept)
        if type(module) not in LINEARS or (attribute == "weight" and not own_copy and is_shared(model, name)):
            raise Unfoldable(f"it replaces {name}")
        old = weight_of(module)
        if attribute == "weight":
            change = (tensor.T if isinstance(module, Conv1D) else tensor) - old.float().cpu()
            pairs.setdefault(owner, []).append(Pair(torch.eye(old.shape[1]), change))
        else:
            change = tensor - model.get_parameter(name).float().cpu()
            pairs.setdefault(owner, []).append(constant(change, old.shape[1]))
    for name in list(pairs):
        if name in layout.unread:
            del pairs[name]
        elif name in layout.unfit:
            raise Unfoldable(f"{name} {layout.unfit[name]}")
    return replace(fitted, modules={name: joined_pairs(some) for name, some in pairs.items()}, saved={}), notes


def located_linear(known: Mapping[str, nn.Module], name: str) -> str | None:
    """Return a module's name in the model, allowing for a missing or additional prefix "model."; None if unknown."""
    return next((one for one in (name, f"model.{name}", name.removeprefix("model.")) if one in known), None)


def converts(model: nn.Module) -> bool:
    """Return whether transformers maps other names to the model's weights, which peft then translates."""
    if getattr(model, "_checkpoint_conversion_mapping", None):
        return True
    try:
        from transformers.conversion_mapping import get_checkpoint_conversion_mapping
    except ImportError:  # an older transformers
        return False
    return bool(get_checkpoint_conversion_mapping(getattr(model.config, "model_type", "")))


def targeted(lora: Lora, name: str) -> bool:
    """Return whether an adapter targets a module. Raises InputError if its target_modules are malformed."""
    try:
        return is_targeted(lora.settings, name)
    except (re.error, TypeError) as error:
        raise InputError(
            f"adapter '{lora.source}': target_modules in adapter_config.json is not what peft takes ({error}); give a "
            "list of names"
        ) from None


def is_shared(model: nn.Module, name: str) -> bool:
    """Return whether a parameter is shared by several modules."""
    parameter = model.get_parameter(name)
    return sum(other is parameter for _, other in model.named_parameters(remove_duplicate=False)) > 1


def without_start(model: nn.Module, lora: Lora, name: str, pair: Pair) -> Pair:
    """Return the adapter's addition to the base's original weight W.

    PiSSA (arXiv 2404.02948) and OLoRA (arXiv 2406.01775) subtract the adapter's initial product from W, and do not save
    it. It has rank r, and is recomputed here from the largest singular values, or the first columns of Q in W = Q R.
    Raises Unfoldable if it cannot be recomputed.
    """
    if not lora.init:
        return pair
    module: Any = model.get_submodule(name)
    if is_shared(model, f"{name}.weight") or (lora.init == "olora" and isinstance(module, Conv1D)):
        raise Unfoldable(f"it uses init_lora_weights '{lora.init}' at {name}")
    weight = weight_of(module).float()
    rank = len(pair.down) if pair.shift is None else int((pair.shift == 0).sum())
    if lora.init == "pissa":
        left, values, right = torch.linalg.svd(weight, full_matrices=False)
        start = Pair(right[:rank].cpu(), -(left[:, :rank] * values[:rank]).cpu())
    else:
        q, r = torch.linalg.qr(weight)
        # peft leaves out the division by the scale that would keep the sum as it was.
        scale = lora_scale(lora.source, lora.settings, name)
        start = Pair(r[:rank].cpu(), -scale * q[:, :rank].cpu())
    return joined_pairs([pair, start])


def replaced(model: nn.Module, known: Mapping[str, nn.Module], lora: Lora) -> dict[str, Tensor]:
    """Return the saved parameters of an adapter that differ from the model's.

    peft saves embeddings with an adapter that changes them or has new tokens.

    Raises:
        InputError: the model lacks a parameter, or has it with another shape.
    """
    found = {}
    for name, tensor in lora.saved.items():
        owner, _, attribute = name.replace(".base_layer.", ".").rpartition(".")
        place = located_linear(known, owner)
        old = None if place is None else getattr(known[place], attribute, None)
        if not isinstance(old, Tensor):
            raise InputError(
                f"adapter '{lora.source}': its {name} has no place in the base; {MEND}, or take it out of the file"
            )
        if old.shape != tensor.shape:
            raise InputError(
                f"adapter '{lora.source}': its {name} is {list(tensor.shape)}, the base's {list(old.shape)}; {MEND}, "
                "or save the base with embeddings of that size"
            )
        if not torch.equal(tensor.to(old.dtype), old.detach().cpu()):
            found[f"{place}.{attribute}" if place else attribute] = tensor
    return found
