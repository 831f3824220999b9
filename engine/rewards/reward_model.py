"""Reward models: sequence classifiers, whole or as a LoRA on a base, with the scores of transformers' forward pass.

A decoder's score is that of its last token, which transformers finds by the padding token of the model's configuration.
Rows are padded here so that the position is the same as for each row alone.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import nn
from transformers import AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import find_adapter_config_file

from engine.errors import InputError, one_line
from engine.models.adapter_files import Lora, Unfoldable, adapter_folder, read_lora
from engine.models.gguf import folder_of, is_gguf
from engine.models.load_errors import load_error
from engine.models.loading import load_tokenizer
from engine.models.lora import merge
from engine.models.prepacked_linear import pack

log = logging.getLogger("mixdesk")

# What transformers calls the module that computes the outputs, and embeddings of positions.
HEADS = {"score", "classifier", "classification_head", "head", "summary", "logits_proj"}
POSITIONS = {"position_embeddings", "embed_positions", "wpe"}


class RewardModel:
    """A sequence classifier with its tokenizer.

    Attributes:
        tokenizer: The reward model's own; for a LoRA, the one saved with it, or otherwise its base's.
        limit: The longest input of the model, in tokens.
    """

    def __init__(self, objective: str, source: str, label: str | None, base: str, device: torch.device) -> None:
        """Load the model of a reward.

        Args:
            objective: The reward's objective, for messages.
            source: The path or hub id of a classifier, or of a LoRA of one.
            label: The name of the output that is the reward; None if there is only one.
            base: The base of a LoRA that names none.
            device: The device of the model.

        Raises:
            InputError: If it cannot be loaded, or some of its weights would be random or are not numbers.
        """
        self.name = f"reward '{objective}'"
        if is_adapter(source):
            self.model, tokenizer = self._load_adapted(source, base, device)
        else:
            self.model, missing = self._load(source, device, {})
            tokenizer = source
            self._check_head(source, missing)
        self._check_finite(source)
        self.output = output_of(self.model, label, f"{self.name}: {source}")
        self.tokenizer = load_tokenizer(tokenizer)
        self.limit = longest_input(self.model, self.tokenizer)
        self.vocabulary = self.model.get_input_embeddings().weight.shape[0]
        config = self.model.config.get_text_config()
        config.use_cache = False
        self._configs = [self.model.config] if config is self.model.config else [self.model.config, config]
        self.model = self.model.to(device).eval().requires_grad_(False)
        if not any(hasattr(module, "base_layer") for module in self.model.modules()):
            pack(self.model)

    def _load(self, source: str, device: torch.device, head: dict[str, int]) -> tuple[PreTrainedModel, set[str]]:
        """Return the model, and the names of weights that its files lack."""
        try:
            # A reward is one number, which 16 bit would round to the nearest hundredth; text does not wait for it.
            dtype: Any = torch.float32 if device.type == "cpu" else "auto"
            model, info = AutoModelForSequenceClassification.from_pretrained(
                folder_of(source, dtype), dtype=dtype, output_loading_info=True, trust_remote_code=False, **head
            )
        except Exception as error:  # whatever its libraries raise on damaged files
            raise InputError(f"{self.name}: {load_error('a reward model', source, error)}") from None
        return model, set(info["missing_keys"])

    def _load_adapted(self, source: str, base: str, device: torch.device) -> tuple[PreTrainedModel, str]:
        """Return a base with the adapter applied, and the path or hub id of its tokenizer."""
        folder = adapter_folder(source)
        lora: Lora | None = None
        reason: Unfoldable | None = None
        try:
            lora = read_lora(source)
        except Unfoldable as error:
            reason = error
        named = json.loads((folder / "adapter_config.json").read_text()).get("base_model_name_or_path")
        # A path is relative to the adapter's own folder, so that the folders can be moved together.
        beside = (folder / (named or "")).resolve()
        on = str(beside) if named and beside.exists() else named or base
        try:
            shapes = shapes_of(folder)
        except Exception as error:  # whatever its libraries raise on damaged files
            raise InputError(
                f"{self.name}: adapter '{source}': its weights are unreadable: {one_line(error)}"
            ) from None
        heads = [shape for key, shape in shapes.items() if HEADS & set(key.split(".")) and "lora_" not in key]
        outputs = [shape[0] for shape in heads if len(shape) == 2]
        model, missing = self._load(on, device, {"num_labels": min(outputs)} if outputs else {})
        self._check_head(source, {key for key in missing if not any(saved_as(key, saved) for saved in shapes)})
        self._fit_vocabulary(model, shapes)
        if lora is not None:
            try:
                merge(model, lora)
                return model, tokenizer_of(folder, on)
            except Unfoldable as error:
                reason = error
                model, _ = self._load(on, device, {"num_labels": min(outputs)} if outputs else {})
                self._fit_vocabulary(model, shapes)
        log.info("%s: %s: %s; peft computes it", self.name, source, reason)
        return self._load_by_peft(model, source), tokenizer_of(folder, on)

    def _load_by_peft(self, model: PreTrainedModel, source: str) -> PreTrainedModel:
        """Return the base with an adapter that is more than a LoRA on linear layers, computed by peft."""
        from peft import PeftModel  # slow to import, and seldom needed

        try:
            wrapped = PeftModel.from_pretrained(model, str(adapter_folder(source)))
        except Exception as error:  # whatever the tuner at hand raises
            raise InputError(
                f"{self.name}: adapter '{source}' does not fit its base: {one_line(error)}; merge it into its base "
                "with peft first"
            ) from None
        if wrapped.active_peft_config.is_prompt_learning:
            raise InputError(
                f"{self.name}: adapter '{source}': its peft_type is {wrapped.active_peft_config.peft_type.value}, "
                "which adds virtual tokens instead of changing weights; give a LoRA or a whole model"
            )
        inner: PreTrainedModel = wrapped.get_base_model()
        return inner

    @staticmethod
    def _fit_vocabulary(model: PreTrainedModel, shapes: dict[str, list[int]]) -> None:
        """Resize the embeddings to the number of rows that the adapter has saved, if it has any."""
        weight = model.get_input_embeddings().weight
        name = next(name for name, parameter in model.named_parameters() if parameter is weight)
        saved = next((shape for key, shape in shapes.items() if saved_as(name, key)), None)
        if saved is not None and saved[0] != len(weight):
            model.resize_token_embeddings(saved[0], mean_resizing=False)

    def _check_head(self, source: str, missing: set[str]) -> None:
        if missing:
            named = ", ".join(sorted(missing)[:3])
            raise InputError(
                f"{self.name}: '{source}' has no {named} in its files, which would be random; give a model that was "
                "saved as a sequence classifier, or a LoRA with modules_to_save: [score]"
            )

    def _check_finite(self, source: str) -> None:
        for name, parameter in self.model.named_parameters():
            # A sum is NaN or infinite if any value is.
            if parameter.is_floating_point() and not parameter.sum(dtype=torch.float32).isfinite():
                raise InputError(
                    f"{self.name}: '{source}': {name} has values that are NaN or infinite; its training diverged or "
                    "the file is damaged: give an earlier checkpoint"
                )

    @torch.inference_mode()
    def scores(self, rows: list[list[int]]) -> list[float]:
        """Return the reward of each row of token ids, the same as for that row alone. Raises InputError."""
        for row in rows:
            if not row:
                raise InputError("there is nothing to read: prompt and response are empty")
            if max(row) >= self.vocabulary:
                raise InputError(
                    f"its tokenizer writes token {max(row)}, and its model has {self.vocabulary:,}: the tokenizer is "
                    "that of another model"
                )
        pad = getattr(self._configs[-1], "pad_token_id", None)
        if pad is None or not 0 <= pad < self.vocabulary:
            # Without a token for padding a row is read at its end. One that ends no row leaves each at its own.
            ends = {row[-1] for row in rows}
            pad = next(token for token in range(len(ends) + 1) if token not in ends)
        longest = max(len(row) for row in rows)
        device = next(self.model.parameters()).device
        ids = torch.tensor([row + [pad] * (longest - len(row)) for row in rows], device=device)
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows], device=device)
        kept = [getattr(config, "pad_token_id", None) for config in self._configs]
        try:
            for config in self._configs:
                config.pad_token_id = pad
            logits = self.model(input_ids=ids, attention_mask=mask).logits
        finally:
            for config, before in zip(self._configs, kept, strict=True):
                config.pad_token_id = before
        return [float(reward) for reward in logits[:, self.output].float().tolist()]


def is_adapter(source: str) -> bool:
    """Return whether a folder or hub id holds an adapter."""
    if Path(source).exists() or is_gguf(source):
        return (Path(source) / "adapter_config.json").is_file()
    try:
        return find_adapter_config_file(source) is not None
    except Exception:  # no hub, no such repository: loading it as a model says so
        return False


def shapes_of(folder: Path) -> dict[str, list[int]]:
    """Return {name in the base: shape} of an adapter's tensors."""
    file = folder / "adapter_model.safetensors"
    if file.is_file():
        with safe_open(file, "pt") as opened:
            found = {key: opened.get_slice(key).get_shape() for key in opened.keys()}  # noqa: SIM118 (it is no dict)
    else:
        tensors = torch.load(folder / "adapter_model.bin", map_location="cpu", weights_only=True)
        found = {key: list(tensor.shape) for key, tensor in tensors.items()}
    return {
        key.removeprefix("base_model.model."): shape for key, shape in found.items() if "original_module" not in key
    }


def saved_as(name: str, key: str) -> bool:
    """Return whether an adapter's tensor `key` is the model's parameter `name`, in either of peft's two notations."""
    return key.replace(".modules_to_save.default", "").replace(".modules_to_save", "") == name


def tokenizer_of(folder: Path, base: str) -> str:
    """Return the path or hub id of an adapter's tokenizer: the adapter's folder if it has one, otherwise the base.

    A tokenizer saved with the adapter has its chat template, end token and added tokens.
    """
    return str(folder) if (folder / "tokenizer_config.json").is_file() else base


def output_of(model: PreTrainedModel, label: str | None, name: str) -> int:
    """Return the index of the classifier's output that is the reward. Raises InputError if that is not clear."""
    labels = {str(name).lower(): i for i, name in model.config.id2label.items()}
    names = ", ".join(map(str, model.config.id2label.values()))
    known = f"{name} has the labels {names}"
    if label is None:
        if len(model.config.id2label) > 1:
            raise InputError(f"{known}; say with 'label' which one is the reward")
        return 0
    if label.lower() not in labels:
        raise InputError(f"{known}; found '{label}', give one of these")
    return labels[label.lower()]


def longest_input(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the longest input of a model in tokens; 2**31 if neither the model nor its tokenizer has a limit."""
    config: Any = model.config.get_text_config()
    limits = [getattr(config, "max_position_embeddings", None) or 2**31, tokenizer.model_max_length, 2**31]
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding) and name.rpartition(".")[2] in POSITIONS:
            # RoBERTa's family counts from its padding token on, OPT's and BART's from an offset.
            offset = getattr(module, "offset", 0 if module.padding_idx is None else module.padding_idx + 1)
            limits.append(module.num_embeddings - offset)
    return int(min(limits))
