"""Find, download, read and check adapter folders as peft and other tools write them.

Settings missing from adapter_config.json have peft's defaults. Files that peft would silently misread (a rank that
differs from that of the weights, weights that are empty or not finite) raise InputError.
"""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from safetensors.torch import load_file
from torch import Tensor

from engine.errors import InputError, one_line

SETTINGS, WEIGHTS, PICKLED = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"

# These add virtual tokens or whole attention layers instead of changing weights.
PROMPT_KINDS = {
    *("PROMPT_TUNING", "MULTITASK_PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "CPT", "CARTRIDGE", "ADAPTION_PROMPT"),
}
# Initialisations that leave the base's weights as they are, and those that take out of them what the adapter begins
# with: there the adapter is right only on what is left. Of the last two kinds it cannot be computed again.
PLAIN_INITS = {"gaussian", "eva", "orthogonal", "mica"}
REBUILT_INITS = {"pissa", "olora"}
LOST_INITS = ("pissa_niter", "corda", "lora_ga")
# Keys of a LoRA's adapter_config.json that are read here, or say nothing of what the adapter computes.
KNOWN = {
    *("peft_type", "task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision"),
    *("inference_mode", "r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "lora_dropout", "lora_bias"),
    *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "modules_to_save", "bias"),
    *("init_lora_weights", "fan_in_fan_out", "ensure_weight_tying", "megatron_core", "qalora_group_size"),
    *("loftq_config", "eva_config", "corda_config", "lora_ga_config", "velora_config", "runtime_config"),
}


class Unfoldable(Exception):  # noqa: N818 (no error: it chooses the way)
    """A valid adapter is not a plain LoRA on linears, and takes the general path. The message is the reason."""


class Pair(NamedTuple):
    """An adapter's addition to a linear's output, up (down x + shift)."""

    down: Tensor  # [r, in]
    up: Tensor  # [out, r], the scale folded in
    shift: Tensor | None = None  # [r], or none


def joined_pairs(pairs: Iterable[Pair]) -> Pair:
    """Return the pair whose addition is the sum of these."""
    pairs = list(pairs)
    shift = None
    if any(pair.shift is not None for pair in pairs):
        shift = torch.cat([pair.down.new_zeros(len(pair.down)) if pair.shift is None else pair.shift for pair in pairs])
    return Pair(torch.cat([pair.down for pair in pairs]), torch.cat([pair.up for pair in pairs], 1), shift)


def constant(values: Tensor, in_features: int) -> Pair:
    """Return the pair that adds `values` [out] to every output."""
    return Pair(values.new_zeros(1, in_features), values.unsqueeze(1), values.new_ones(1))


@dataclass(frozen=True)
class Lora:
    """One adapter as read from disk.

    Attributes:
        source: the path or hub id of the adapter.
        base: the base that its settings name.
        modules: {linear: pair that is added to it}.
        saved: {parameter: its replacement}, of peft's modules_to_save and biases, such as a score head.
        settings: the content of adapter_config.json.
    """

    source: str
    base: str | None
    modules: dict[str, Pair]
    saved: dict[str, Tensor]
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def init(self) -> str:
        """The initialisation in lower case if it has changed the base's weights, otherwise ""."""
        init = self.settings.get("init_lora_weights")
        return init.lower() if isinstance(init, str) and init.lower() in REBUILT_INITS else ""


def adapter_folder(source: str) -> Path:
    """Return the folder of an adapter, downloaded if `source` is a hub id or a folder in a hub repository.

    Raises InputError if it is not an adapter.
    """
    folder = Path(source) if Path(source).is_dir() else downloaded(source)
    if not (folder / SETTINGS).is_file():
        raise InputError(f"adapter '{source}': {SETTINGS} is missing; {elsewhere(folder)}")
    if not any((folder / name).is_file() for name in (WEIGHTS, PICKLED)):
        raise InputError(f"adapter '{source}': {WEIGHTS} is missing; {elsewhere(folder)}")
    return folder


@functools.cache
def downloaded(source: str) -> Path:
    """Download an adapter, once per process, and return its folder in the hub's cache. Raises InputError."""
    repository, inner = "/".join(source.split("/")[:2]), "/".join(source.split("/")[2:])
    before = f"{inner}/" if inner else ""
    names = ("adapter_*", "tokenizer*", "special_tokens_map.json", "chat_template*", "added_tokens.json")
    wanted = [f"{before}{name}" for name in names]
    try:
        return Path(snapshot_download(repository, allow_patterns=wanted)) / inner
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise InputError(
            f"adapter '{source}': not a folder here, and not to be had from the hub ({one_line(error)}); mend the "
            "path or id, or see to the network"
        ) from None


def elsewhere(folder: Path) -> str:
    """Return the remedy for a folder that is not an adapter."""
    inner = sorted(path.parent.name for path in folder.glob(f"*/{SETTINGS}"))
    if inner:
        shown = ", ".join(inner[:4]) + (", ..." if len(inner) > 4 else "")
        return f"the folder has adapters inside it: give the path of one of them ({shown})"
    if (folder / "config.json").is_file():
        return "the folder has a whole model: give it as 'model', not as 'adapter'"
    return "expected a folder saved by peft (safetensors)"


def read_settings(source: str) -> dict[str, Any]:
    """Read adapter_config.json. Raises InputError."""
    try:
        settings = json.loads((adapter_folder(source) / SETTINGS).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"adapter '{source}': {SETTINGS} is not JSON ({error}); save it again") from None
    if not isinstance(settings, dict):
        raise InputError(f"adapter '{source}': {SETTINGS} holds {type(settings).__name__}, expected peft's settings")
    kind = settings.get("peft_type")
    if not isinstance(kind, str):
        raise InputError(
            f'adapter \'{source}\': {SETTINGS} has no "peft_type"; add it ("peft_type": "LORA" for a LoRA), or save '
            "the adapter again with peft"
        )
    if kind in PROMPT_KINDS:
        raise InputError(
            f"adapter '{source}': its peft_type is {kind}, which adds virtual tokens or layers instead of changing "
            "weights and cannot be mixed here; give a LoRA, or another adapter that changes weights"
        )
    base = settings.get("base_model_name_or_path")
    if base is not None and not isinstance(base, str):
        raise InputError(f"adapter '{source}': {SETTINGS}: base_model_name_or_path: found {base}, expected a text")
    return settings


def read_tensors(source: str) -> dict[str, Tensor]:
    """Read an adapter's weights, and check that they are neither empty nor infinite or NaN. Raises InputError."""
    folder = adapter_folder(source)
    name = WEIGHTS if (folder / WEIGHTS).is_file() else PICKLED
    try:
        if name == WEIGHTS:
            tensors = load_file(folder / name)
        else:
            tensors = torch.load(folder / name, map_location="cpu", weights_only=True)
            tensors = tensors.get("state_dict", tensors)
            if not all(isinstance(key, str) and isinstance(value, Tensor) for key, value in tensors.items()):
                raise ValueError("it is no mapping of names to tensors")
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        mend = "save the adapter again"
        if name == PICKLED:
            reason, mend = "it holds more than tensors, or is damaged", "save the adapter again as safetensors"
        raise InputError(f"adapter '{source}': {name} is unreadable ({reason}); {mend}") from None
    for key, tensor in tensors.items():
        if tensor.numel() == 0:
            raise InputError(
                f"adapter '{source}': {key} is empty, as DeepSpeed ZeRO-3 leaves weights that were not gathered; save "
                "it again with stage3_gather_16bit_weights_on_model_save, or by zero_to_fp32.py"
            )
        if not tensor.isfinite().all():
            raise InputError(
                f"adapter '{source}': {key} has values that are NaN or infinite; its training diverged or the file is "
                "damaged: give an earlier checkpoint"
            )
    return tensors


def read_lora(source: str) -> Lora:
    """Read a peft LoRA. Raises InputError if it is not an adapter, Unfoldable if it needs the general path."""
    settings = read_settings(source)
    if settings["peft_type"] != "LORA":
        raise Unfoldable(f"{settings['peft_type']} is not LoRA")
    check_init(source, settings)
    for key in used_settings(settings):
        raise Unfoldable(f"it uses {key}")
    modules, saved = {}, {}
    found: dict[str, dict[str, Tensor]] = {}  # {module: {"A.weight": ..., "B.weight": ..., "B.bias": ...}}
    for key, tensor in read_tensors(source).items():
        name = bare(key)
        # The adapter's own name, as in lora_A.default.weight, is there where a whole state dict was saved.
        match = re.fullmatch(r"(.*)\.lora_(A|B)(?:\.[^.]+)?\.(weight|bias)", name)
        if match:
            found.setdefault(match[1], {})[f"{match[2]}.{match[3]}"] = tensor
        elif "lora_" in name:
            raise Unfoldable(f"it has {key}")
        elif "original_module." not in name:
            saved[re.sub(r"modules_to_save\.(default\.)?", "", name)] = tensor.float()
    for name, parts in found.items():
        for one, other in (("A", "B"), ("B", "A")):
            if f"{one}.weight" not in parts:
                raise InputError(
                    f"adapter '{source}': {name} has lora_{other} but no lora_{one}; save the adapter again"
                )
        a, b, bias = parts["A.weight"], parts["B.weight"], parts.get("B.bias")
        if a.dim() != 2 or b.dim() != 2:
            raise Unfoldable(f"{name} is not a linear")
        scale = lora_scale(source, settings, name, len(a), b.shape[1])
        pair = Pair(a.float(), b.float() * scale)
        modules[name] = pair if bias is None else joined_pairs([pair, constant(bias.float() * scale, a.shape[1])])
    if not modules:
        raise InputError(
            f"adapter '{source}': adapter_model.safetensors holds no LoRA (no lora_A and lora_B); save it again"
        )
    return Lora(source, settings.get("base_model_name_or_path"), modules, saved, settings)


def check_init(source: str, settings: dict[str, Any]) -> None:
    """Check the initialisation of a LoRA.

    Raises:
        InputError: it has changed the base's weights in a way that cannot be recomputed.
        Unfoldable: only peft can compute it.
    """
    init = settings.get("init_lora_weights")
    if not isinstance(init, str) or init.lower() in PLAIN_INITS | REBUILT_INITS:
        return
    if init.lower().startswith(LOST_INITS):
        raise InputError(
            f"adapter '{source}': it was trained on a base that init_lora_weights '{init}' had changed, and how cannot "
            "be computed again; convert it with peft's save_pretrained(path_initial_model_for_weight_conversion=...)"
        )
    raise Unfoldable(f"it uses init_lora_weights '{init}'")


def used_settings(settings: dict[str, Any]) -> list[str]:
    """Return the keys that are set, affect a LoRA's computation, and are not read here; peft ignores unknown ones."""
    used = [key for key, value in settings.items() if value and key not in KNOWN]
    if not used:
        return []
    from dataclasses import fields

    from peft import LoraConfig  # slow to import, and seldom needed

    return [key for key in used if key in {one.name for one in fields(LoraConfig)}]


def lora_scale(source: str, settings: dict[str, Any], name: str, *ranks: int) -> float:
    """Return the scale of a module's product, which peft derives from r, lora_alpha and their patterns.

    Args:
        source: the adapter, for messages.
        settings: its settings.
        name: the module.
        ranks: the ranks of the module's weights.

    Raises:
        InputError: the settings are not numbers, or their rank is not that of the weights.
    """
    rank = read_number(source, settings, "rank_pattern", "r", name)
    alpha = read_number(source, settings, "alpha_pattern", "lora_alpha", name)
    for found in ranks:
        if found != rank:
            raise InputError(
                f"adapter '{source}': {name} has rank {found}, and {SETTINGS} says {rank:g}; mend its r or rank_pattern"
            )
    return alpha / (math.sqrt(rank) if settings.get("use_rslora") else rank)


def read_number(source: str, settings: dict[str, Any], pattern: str, key: str, name: str) -> float:
    """Return a module's value of a setting: that of the first matching pattern, otherwise the general one.

    Args:
        source: the adapter, for messages.
        settings: its settings.
        pattern: the key of the patterns, such as rank_pattern.
        key: the key of the general value, such as r.
        name: the module.

    Raises:
        InputError: the value is not a number, or a pattern is not a regular expression.
    """
    patterns = settings.get(pattern) or {}
    if not isinstance(patterns, dict):
        raise InputError(f"adapter '{source}': {SETTINGS}: {pattern}: found {patterns}, expected a mapping")
    value = settings.get(key, 8)  # peft's default of both
    for one, other in patterns.items():
        try:
            matched = re.match(rf"(.*\.)?({one})$", name)
        except re.error:
            raise InputError(f"adapter '{source}': {SETTINGS}: {pattern}: '{one}' is no regular expression") from None
        if matched:
            key, value = pattern, other
            break
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise InputError(
            f"adapter '{source}': {SETTINGS}: {key}: found {json.dumps(value)}, expected a number; write the value "
            "that it was trained with"
        )
    if key in ("r", "rank_pattern") and value <= 0:
        raise InputError(f"adapter '{source}': {SETTINGS}: {key}: found {value}, expected a rank of 1 or more")
    return value


def bare(key: str) -> str:
    """Return a weight's name in the base, without the prefixes of peft, DDP, FSDP and torch.compile."""
    key = key.replace("_fsdp_wrapped_module.", "").replace("_orig_mod.", "").removeprefix("module.")
    return key.removeprefix("base_model.model.") if key.startswith("base_model.model.") else key


def is_targeted(settings: dict[str, Any], name: str) -> bool:
    """Return whether the settings target the module of this name, by peft's rules."""
    targets, excluded = settings.get("target_modules"), settings.get("exclude_modules")
    if excluded and matches(excluded, name):
        return False
    if any(re.match(rf"(^|.*\.){one}($|\..*)", name) for one in settings.get("modules_to_save") or []):
        return False
    if targets is None or targets == "all-linear":
        return True
    if not matches(targets, name):
        return False
    layers, patterns = settings.get("layers_to_transform"), settings.get("layers_pattern")
    if layers is None or layers == [] or isinstance(targets, str) or name in targets:
        return True
    patterns = [patterns] if isinstance(patterns, str) else patterns or [r"[^.]*"]
    found = next((m for p in patterns if (m := re.match(rf"(?:.*?\.)?{p}\.(\d+)\.", name))), None)
    return found is not None and int(found[1]) in ([layers] if isinstance(layers, int) else layers)


def matches(wanted: str | list[str], name: str) -> bool:
    """Return whether a module's name matches a regular expression, or ends with one of a list of names."""
    if isinstance(wanted, str):
        return re.fullmatch(wanted, name) is not None
    return any(name == one or name.endswith(f".{one}") for one in wanted)
