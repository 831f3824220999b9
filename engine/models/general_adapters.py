"""The general path: a copy of the base with adapters that cannot be folded, computed by peft.

peft's forward pass defines the result. Merging an adapter into the weights is faster, and is done if the merged model
gives the same log-probs; not if a changed weight is shared (tied embeddings, replicated layers), or if peft cannot
merge this kind of adapter.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from engine.errors import InputError, one_line
from engine.models.adapter_files import SETTINGS, adapter_folder, read_settings, read_tensors

Load = Callable[[], PreTrainedModel]


def load_with_adapters(
    load: Load, adapters: list[str], base: str, notes: list[str], merge_last: bool = True
) -> nn.Module:
    """Load the base and apply adapters to it in order.

    Args:
        load: A function that returns a new copy of the base.
        adapters: The paths or hub ids of the adapters.
        base: The base's source, for messages.
        notes: A list to which remarks on the adapters are appended.
        merge_last: Whether the last adapter may be merged; all others must be.

    Raises:
        InputError: An adapter does not fit, or cannot be computed here.
    """
    model: nn.Module = load()
    said: list[str] = []
    for place, adapter in enumerate(adapters):
        last = place == len(adapters) - 1
        wrapped = attach(model, adapter, base, said)
        inner = wrapped.get_base_model()
        ids = probe_ids(inner, wrapped.active_peft_config)
        wanted = logits(wrapped, ids)
        if not alike(logits(inner, ids), wanted):
            raise InputError(
                f"adapter '{adapter}': peft computes its kind ({wrapped.active_peft_config.peft_type.value}) from more "
                "than weights, which cannot be mixed here; give a LoRA, or another adapter that changes weights"
            )
        if not last or merge_last:
            merged = None if stands_twice(inner) else merged_if_alike(wrapped, ids, wanted)
            if merged is not None:
                model = merged
                continue
            if last:  # merging may have changed it
                return load_with_adapters(load, adapters, base, notes, merge_last=False)
            raise InputError(
                f"adapter '{adapter}' cannot be merged into '{base}' as it is, and others are stacked on it; put it "
                "last, or merge it into the base with peft first"
            )
        model = inner
    notes += said
    return model.eval()


def attach(model: nn.Module, adapter: str, base: str, notes: list[str]) -> Any:
    """Return peft's model of an adapter on a model, and append remarks to `notes`. Raises InputError."""
    from peft import PeftModel, get_peft_model_state_dict  # only the general path needs it, and it is slow to import
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    kind = read_settings(adapter)["peft_type"]
    if kind not in {known.value for known in PEFT_TYPE_TO_CONFIG_MAPPING}:
        raise InputError(
            f"adapter '{adapter}': {SETTINGS}: peft_type: found '{kind}', which this peft does not know; mend it, or "
            "install a newer peft"
        )
    tensors = read_tensors(adapter)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            wrapped = PeftModel.from_pretrained(model, str(adapter_folder(adapter))).eval()
    except Exception as error:  # whatever the tuner at hand raises
        raise InputError(
            f"adapter '{adapter}' does not fit the base '{base}': {one_line(error)}; give one that was "
            "trained from this base"
        ) from None
    missing = next((str(one.message) for one in caught if "missing adapter keys" in str(one.message)), "")
    if missing:
        kept = get_peft_model_state_dict(wrapped, save_embedding_layers=False)
        if not set(kept) & set(tensors):
            raise InputError(
                f"adapter '{adapter}': none of its weights has the name of one that peft expects: found "
                f"{next(iter(tensors))}, expected {next(iter(kept))}; save it again with peft's save_pretrained"
            )
        absent = [key for key in kept if key not in tensors]
        notes.append(
            f"it has no weights for {len(absent)} of the {len(kept)} that its settings name, such as "
            f"{absent[0] if absent else missing[-60:]}"
        )
    return wrapped


def probe_ids(model: Any, settings: Any) -> Tensor:
    """Return two rows of token ids [2, 12] to compare models on, including tokens that the adapter trains."""
    size = model.get_input_embeddings().weight.shape[0]
    ids = torch.randint(size, (2, 12), generator=torch.Generator().manual_seed(0))
    keys = ("trainable_token_indices", "token_indices", "alora_invocation_tokens")
    own: Any = next((found for key in keys if (found := getattr(settings, key, None))), [])
    chosen = [i for some in own.values() for i in some] if isinstance(own, dict) else list(own)
    ids[0, : min(6, len(chosen))] = torch.tensor(chosen[:6], dtype=torch.long)
    return ids.to(next(model.parameters()).device)


@torch.inference_mode()
def logits(model: nn.Module, ids: Tensor) -> Tensor:
    """Return the logits [rows, positions, V], float32, of ids [rows, positions]. Raises InputError."""
    try:
        return model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits.float()
    except Exception as error:  # an adapter that wants more than tokens
        raise InputError(
            f"the base cannot be computed with its adapter: {one_line(error)}; give an adapter of a decoder"
        ) from None


def alike(one: Tensor, other: Tensor) -> bool:
    """Return whether two models' logits are equal up to rounding errors."""
    apart = (one.log_softmax(-1) - other.log_softmax(-1)).abs().max().item()
    largest = max(1.0, other.abs().max().item())
    return math.isfinite(apart) and apart < 1e-4 * largest


def stands_twice(model: nn.Module) -> bool:
    """Return whether a weight that an adapter changes is shared with another module, which merging would change too."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    places = Counter(
        id(parameter)
        for module in model.modules()
        for parameter in module._parameters.values()
        if parameter is not None
    )
    changed = (module.get_base_layer() for module in model.modules() if isinstance(module, BaseTunerLayer))
    return any(places[id(parameter)] > 1 for module in changed for parameter in module.parameters(recurse=False))


def merged_if_alike(wrapped: Any, ids: Tensor, wanted: Tensor) -> nn.Module | None:
    """Merge the adapter, and return the model; None if merging fails, or the merged model differs.

    Args:
        wrapped: peft's model.
        ids: token ids to compare on.
        wanted: peft's logits of these.
    """
    try:
        merged: nn.Module = wrapped.merge_and_unload()
    except Exception:  # each tuner has its own way of saying so
        return None
    exact = next(merged.parameters()).dtype == torch.float32
    found = logits(merged, ids)
    # Merged weights of 16 bits are rounded once more.
    same = alike(found, wanted) if exact else (found.softmax(-1) - wanted.softmax(-1)).abs().max().item() < 0.05
    return merged if same else None


def is_unmerged(model: nn.Module) -> bool:
    """Return whether the model has layers of peft, which read the weights of the linears inside them."""
    return any(hasattr(module, "base_layer") or hasattr(module, "original_module") for module in model.modules())
