"""Write and read the folder of a mixture as one model: configuration, adapters, tokenizer, a reference to the base."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from pydantic import ValidationError
from transformers import GenerationConfig, PreTrainedConfig, PreTrainedTokenizerBase

from engine.config import Adapted, Config, load_config
from engine.errors import InputError
from engine.files import filling
from engine.models.adapter_files import adapter_folder
from engine.rules.mixture import Mixture

YAML = "mixdesk.yaml"  # the configuration, for the engine too
CONFIG = "config.json"  # what transformers asks for, with the mixture
FORMAT = 1
ADAPTER_FILES = ("adapter_*", "tokenizer*", "special_tokens_map.json", "added_tokens.json", "chat_template*")
HUB = ("revision", "token", "cache_dir", "local_files_only")  # of from_pretrained's keywords


class MixedPolicyConfig(PreTrainedConfig):
    """The content of config.json, by which transformers finds MixedPolicy once `engine.models.hf_model` is imported."""

    model_type = "mixdesk_mixture"


@dataclass(frozen=True)
class SavedMixture:
    """The content of a folder.

    Attributes:
        config: the configuration.
        mixture: the mixture.
        trace: whether all policies are computed.
        policies: the names of the policies that are computed.
    """

    config: Config
    mixture: Mixture
    trace: bool
    policies: list[str]


def write_folder(
    folder: str | Path,
    saved: SavedMixture,
    tokenizer: PreTrainedTokenizerBase,
    generation_config: GenerationConfig | None,
) -> None:
    """Write a folder; an older one is left as it was if that fails. Raises InputError if it cannot be written."""
    folder, config = Path(folder), saved.config
    policies = [policy for policy in config.policies if policy.name in saved.policies]
    settings: dict[str, Any] = {"name": config.name, "base": config.base, "dtype": config.dtype}
    if config.chat_template_kwargs:
        settings["chat_template_kwargs"] = config.chat_template_kwargs
    mixture = saved.mixture.as_dict()
    known = {policy.name for policy in policies} | {"reference"}
    mixture["weights"] = {name: weight for name, weight in mixture["weights"].items() if name in known}
    about = {
        "model_type": MixedPolicyConfig.model_type,
        "architectures": ["MixedPolicy"],
        "format": FORMAT,
        "mixture": mixture,
        "trace": saved.trace,
    }
    try:
        with filling(folder) as partial:
            if config.reference:
                settings["reference"] = keep_adapter(partial, "reference", config.reference)
            settings["policies"] = [keep_adapter(partial, policy.name, policy) for policy in policies]
            text = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
            (partial / YAML).write_text(text, encoding="utf-8")
            (partial / CONFIG).write_text(json.dumps(about, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
            tokenizer.save_pretrained(partial)
            if generation_config is not None:
                generation_config.save_pretrained(partial)
    except OSError as error:
        raise InputError(f"save_pretrained: cannot write {folder}: {error.strerror}; give another folder") from None


def keep_adapter(folder: Path, name: str, settings: Adapted) -> dict[str, Any]:
    """Copy the adapters of a policy into the folder, and return its settings with the copies' paths."""
    places = []
    for number, source in enumerate(settings.adapters, 1):
        # Not deeper: what is pushed to the hub is one folder deep.
        place = f"adapter-{name}" if len(settings.adapters) == 1 else f"adapter-{name}-{number}"
        found = adapter_folder(source)
        (folder / place).mkdir(exist_ok=True)
        for pattern in ADAPTER_FILES:
            for file in found.glob(pattern):
                if file.is_file():
                    shutil.copyfile(file, folder / place / file.name)
        places.append(place)
        about = folder / place / "adapter_config.json"
        written = json.loads(about.read_text(encoding="utf-8"))
        # A path relative to the adapter's own folder means nothing elsewhere.
        base = found / str(written.get("base_model_name_or_path") or ".")
        if written.get("base_model_name_or_path") and base.exists():
            written["base_model_name_or_path"] = str(base.resolve())
            about.write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")
    kept = settings.model_dump(exclude_none=True, exclude_defaults=True)
    return kept if not places else {**kept, "adapter": places[0] if len(places) == 1 else places}


def read_folder(source: str | Path, kwargs: Mapping[str, Any]) -> tuple[SavedMixture, GenerationConfig | None]:
    """Read a folder that `write_folder` wrote, or a copy of it on the hub. Raises InputError.

    Args:
        source: The folder, or a hub id.
        kwargs: Those of `MixedPolicy.from_pretrained`.

    Returns:
        The content, and the generation config if there is one.
    """
    folder = Path(source)
    if not folder.is_dir():
        try:
            folder = Path(snapshot_download(str(source), **{key: kwargs[key] for key in HUB if key in kwargs}))
        except (HfHubHTTPError, HFValidationError, OSError) as error:
            reason = str(error).strip().splitlines()[0]
            raise InputError(f"'{source}': not a folder here, and not to be had from the hub ({reason})") from None
    try:
        about = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        if about["model_type"] != MixedPolicyConfig.model_type or about["format"] != FORMAT:
            raise KeyError("model_type")
        mixture, trace = Mixture(**about["mixture"]), bool(about["trace"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{folder}: {CONFIG} is not that of a mixture ({type(error).__name__}: {error}); give a folder that "
            "MixedPolicy.save_pretrained wrote"
        ) from None
    config = load_config(folder / YAML)
    dtype, device = kwargs.get("dtype", kwargs.get("torch_dtype")), kwargs.get("device_map")
    changes = {
        "dtype": None if dtype is None else str(dtype).removeprefix("torch."),
        "device": None if device is None else str(device),
    }
    for key, value in changes.items():
        if value is None:
            continue
        try:
            setattr(config, key, getattr(Config.model_validate({**config.model_dump(), key: value}), key))
        except ValidationError:
            raise InputError(f"from_pretrained: found {key} {value}; give one that a configuration may have") from None
    has_generation = (folder / "generation_config.json").is_file()
    generation = GenerationConfig.from_pretrained(folder) if has_generation else None
    return SavedMixture(config, mixture, trace, [policy.name for policy in config.policies]), generation
