"""A mixture as a Hugging Face model, for `generate()` and the libraries that build on it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    Cache,
    DynamicCache,
    DynamicLayer,
    GenerationMixin,
    PreTrainedModel,
)
from transformers.modeling_outputs import CausalLMOutputWithPast

from engine.config import DEMO, load_config
from engine.errors import InputError
from engine.models.cache_argument import CACHE
from engine.models.hf_model_files import MixedPolicyConfig, SavedMixture, read_folder, write_folder
from engine.models.policy_set import PolicySet
from engine.models.prompt_heads import PromptHead, prompt_heads
from engine.rules.mixture import Mixture, make_mixture


class PackedLayer(DynamicLayer):
    """The keys and values of all policies of a sequence, packed as heads of one row.

    Their shape is [sequences, policies * heads, positions, size], so that transformers' operations on rows (beams,
    selecting, repeating) act on sequences.

    Attributes:
        policies: the number of policies.
        extra: the number of positions that transformers does not count, since prompted policies have longer prompts.
        hidden: the number of positions that `get_seq_length` leaves out: `extra`, or 0 during the network's forward
            pass.
    """

    def __init__(self, policies: int, extra: int = 0) -> None:
        super().__init__()
        self.policies = policies
        self.extra = self.hidden = extra

    def get_seq_length(self) -> int:
        """Return the number of positions that transformers counts."""
        return max(0, super().get_seq_length() - self.hidden)

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Append keys and values, [sequences * policies, heads, positions, size], and return all in that shape."""
        # [sequences * policies, heads, positions, size]
        rows = (-1, self.policies)
        packed = (part.unflatten(0, rows).flatten(1, 2) for part in (key_states, value_states))
        keys, values = super().update(*packed, *args, **kwargs)
        return tuple(part.unflatten(1, (self.policies, -1)).flatten(0, 1) for part in (keys, values))


class MixedPolicy(PreTrainedModel, GenerationMixin):
    """A mixture of policies as a causal language model. Its logits are the mixture's log-probs.

    The policies must be computed with the base of the PolicySet: adapters that are folded into it, and prompted
    policies. A policy with a separate model or chat template raises InputError.

    `model.mixture = model.mix({"helpful": 1})` changes the mixture, also between two calls that share a cache. Unless
    `trace` is true, only policies of the initial mixture can have weight.

    Prompts are those of the reference, in the tokenizer's chat template. For a prompted policy, the beginning of the
    prompt is replaced by its own; logits at positions within that beginning are not those of a mixture.

    Attributes:
        policy_set: the policies.
        mixture: the mixture.
        trace: whether all policies are computed.
    """

    config_class = MixedPolicyConfig
    main_input_name = "input_ids"
    # Whatever the base was loaded with: attention and experts are its own affair.
    _supports_sdpa = _supports_flash_attn = _supports_flex_attn = True
    _can_set_experts_implementation_cached_value = True

    def __init__(self, policy_set: PolicySet, mixture: Mixture, trace: bool = False) -> None:
        config = copy.deepcopy(policy_set.models[0].config)
        super().__init__(config)
        self.trace = trace
        self.mixture = mixture
        self._take(policy_set)

    def _take(self, policy_set: PolicySet) -> None:
        """Use the policies of a PolicySet. Raises InputError for a policy that is not computed with the base."""
        self.policy_set = policy_set
        self.network = policy_set.models[0]
        self.generation_config = copy.deepcopy(self.network.generation_config)
        assert self.generation_config is not None
        self.generation_config.eos_token_id = sorted(policy_set.stop_ids) or None
        self.policies = policy_set.rows_of(self.mixture, self.trace)
        for policy in self.policies:
            if policy.model or policy.chat:
                what = policy.note or "read in a chat template of its own"
                raise InputError(
                    f"policy '{policy.name}' is {what}; a mixture as one model takes only adapters that are folded "
                    "into the base and prompts; use the engine, or leave it out"
                )
        # {policy: how its prompts begin}, of those whose prompts begin otherwise than the reference's
        self.heads: dict[str, PromptHead] = prompt_heads(policy_set, self.policies)

    @classmethod
    def from_config(
        cls, file: str | Path = DEMO, weights: Mapping[str, float] | None = None, trace: bool = False, **mixing: object
    ) -> MixedPolicy:
        """Load the policies of a configuration as a mixture.

        Args:
            file: The configuration file.
            weights: {policy: weight}; uniform if None.
            trace: Compute all policies, so that the mixture can be changed to any other.
            mixing: rule, gain and exponent of the mixture.

        Raises:
            InputError: The configuration or mixture is not valid, or a policy is not computed with the base.
        """
        policy_set = PolicySet(load_config(file))
        return cls(policy_set, make_mixture(weights, policy_set.names, **mixing), trace)  # type: ignore[arg-type]

    def mix(self, weights: Mapping[str, float] | None = None, **mixing: object) -> Mixture:
        """Return a checked mixture of these policies; uniform if `weights` is None. Raises InputError."""
        return make_mixture(weights, self.policy_set.names, **mixing)  # type: ignore[arg-type]

    @property
    def tokenizer(self):
        """The base's tokenizer."""
        return self.policy_set.tokenizer

    # ---------------------------------------- files, copies, devices

    def save_pretrained(self, save_directory: str | Path, push_to_hub: bool = False, **kwargs: Any) -> None:
        """Write the configuration, mixture, adapters and tokenizer to a folder that `from_pretrained` can load.

        The base is not written, but referred to by its hub id or path. Raises InputError.
        """
        needed = [policy.name for policy in self.policies] + [n for n, w in self.mixture.weights.items() if w]
        saved = SavedMixture(self.policy_set.config, self.mixture, self.trace, needed)
        write_folder(save_directory, saved, self.tokenizer, self.generation_config)
        if push_to_hub:
            self.push_to_hub(kwargs.pop("repo_id", Path(save_directory).name), token=kwargs.get("token"))

    def push_to_hub(self, *args: Any, **kwargs: Any) -> Any:
        """Push the folder that `save_pretrained` writes to the hub. Raises InputError if the base is a path."""
        if Path(self.policy_set.base).exists():
            raise InputError(
                f"push_to_hub: the base is '{self.policy_set.base}', which is only here; push it first, and "
                "give its hub id in the configuration"
            )
        return super().push_to_hub(*args, **kwargs)

    @classmethod
    def from_pretrained(cls, source: str | Path, *_: object, **kwargs: Any) -> MixedPolicy:
        """Load what `save_pretrained` wrote, from a folder or the hub.

        Args:
            source: The folder, or a hub id.
            kwargs: dtype and device_map (the name of a device) to replace the saved ones; revision, token, cache_dir
                and local_files_only for the hub. Others are ignored.

        Raises:
            InputError: It is not such a folder, or the base cannot be found.
        """
        saved, generation = read_folder(source, kwargs)
        policy_set = PolicySet(saved.config)
        mixture = saved.mixture  # checked, and then taken as it is: to divide its weights again would round them
        make_mixture(mixture.weights, policy_set.names, mixture.rule, mixture.gain, mixture.exponent)
        made = cls(policy_set, mixture, saved.trace)
        if generation is not None:
            made.generation_config = generation
        return made.eval()

    def __deepcopy__(self, memo: dict[int, Any]) -> MixedPolicy:
        """Copy by loading the policies again, since packed weights cannot be copied."""
        made = type(self)(PolicySet(self.policy_set.config), self.mixture, self.trace)
        made.generation_config = copy.deepcopy(self.generation_config, memo)
        memo[id(self)] = made
        return made.train(self.training)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> MixedPolicy:
        """Move to another device or dtype by loading the policies again, since packing and folding depend on both."""
        now = torch.empty(0, dtype=self.network.dtype, device=self.network.device)
        then = fn(now)
        if (then.device, then.dtype) != (now.device, now.dtype):
            settings = self.policy_set.config.model_copy()
            settings.place(self.policy_set.config.file)
            device, dtype = str(then.device), str(then.dtype).removeprefix("torch.")
            if then.device.type not in ("cpu", "cuda") or dtype not in ("float32", "bfloat16", "float16"):
                raise InputError(f"to: found {device} and {dtype}; give cpu or cuda, and float32, bfloat16 or float16")
            settings.device, settings.dtype = device, dtype  # type: ignore[assignment]
            generation = self.generation_config
            self._take(PolicySet(settings))
            self.generation_config = generation
        return self

    # ---------------------------------------- computing

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        cache: Cache | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        labels: Tensor | None = None,
        past_key_values: Cache | None = None,
        **kwargs: object,
    ) -> CausalLMOutputWithPast:
        """Compute the mixture's log-probs.

        Args:
            input_ids: [sequences, positions].
            attention_mask: [sequences, positions], those of the cache included.
            position_ids: [sequences, positions]; ignored with prompted policies.
            cache: a cache that this model has filled, or an empty one.
            use_cache: return a cache; by default if one is given, or if not training.
            logits_to_keep: as in transformers.
            labels: [sequences, positions]; the loss is the mean cross entropy of each next token, without labels -100.
            past_key_values: the name of `cache` in transformers before 5.24.
            kwargs: ignored.

        Returns:
            The output with logits [sequences, positions, V], which are normalised log-probs.

        Raises:
            InputError: the mixture has a policy that this model does not compute, or the mask or cache does not fit.
        """
        assert input_ids is not None
        count, names = len(self.policies), [policy.name for policy in self.policies]
        if missing := [name for name in self.mixture.needs if name not in names]:
            raise InputError(
                f"mixture: {', '.join(missing)} is not among this model's policies; make it with trace=True"
            )
        cache = past_key_values if cache is None else cache
        if use_cache is None:
            use_cache = cache is not None or not self.training
        if use_cache:
            cache = self._packed(cache)
        acting = [self.policy_set.acting(policy, self.mixture) for policy in self.policies]
        self.policy_set.set_gates(0, acting * len(input_ids))
        ids: Tensor
        mask: Tensor | None
        positions: Tensor | None
        if self.heads:
            ids, mask, positions = self._with_heads(input_ids, attention_mask, cache)
        else:
            ids = input_ids.repeat_interleave(count, 0)
            mask = None if attention_mask is None else attention_mask.repeat_interleave(count, 0)
            positions = self._repeated(position_ids, len(input_ids))
        layers = [layer for layer in cache.layers if isinstance(layer, PackedLayer)] if cache is not None else []
        for layer in layers:
            layer.hidden = 0  # the network sees all positions that there are
        try:
            logits = self.network(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions,
                use_cache=use_cache,
                logits_to_keep=logits_to_keep,
                **{CACHE: cache},
            ).logits
        finally:
            for layer in layers:
                layer.hidden = layer.extra
        if self.heads:
            logits = logits[:, -input_ids.shape[1] :]
        # [sequences * policies, positions, V] -> [policies, sequences, positions, V]
        log_probs = logits.float().log_softmax(-1).unflatten(0, (-1, count)).transpose(0, 1)
        mixtures = [self.mixture] * len(input_ids) * log_probs.shape[2]
        mixed = Mixture.mix(mixtures, log_probs.flatten(1, 2), names)
        mixed = mixed.unflatten(0, (len(input_ids), -1))
        loss = None
        if labels is not None:
            loss = torch.nn.functional.cross_entropy(mixed[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        return CausalLMOutputWithPast(loss=loss, logits=mixed, **{CACHE: cache if use_cache else None})

    def _with_heads(
        self, input_ids: Tensor, attention_mask: Tensor | None, cache: Cache | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return (ids, mask, positions) of all policies' rows, with the beginning of each policy's prompt."""
        known = cache.get_seq_length() if cache is not None else 0
        if attention_mask is None:
            attention_mask = torch.ones(len(input_ids), known + input_ids.shape[1], dtype=torch.long)
        if attention_mask.dim() != 2:
            raise InputError("attention_mask: give one of two dimensions; prompted policies read longer prompts")
        device, lengths = input_ids.device, attention_mask.sum(-1).tolist()
        if not bool(attention_mask[:, -1].all()) or bool((attention_mask.diff(dim=-1) < 0).any()):
            raise InputError("attention_mask: pad on the left; the end of a prompt is where the response begins")
        width = attention_mask.shape[1] + self._extra
        heads = [self.heads.get(policy.name) for policy in self.policies]
        mask = torch.zeros(len(input_ids) * len(heads), width, dtype=torch.long)
        ids = input_ids.repeat_interleave(len(heads), 0)
        if not known:
            ids = torch.nn.functional.pad(ids, (self._extra, 0))
        for row, (length, head) in enumerate((length, head) for length in lengths for head in heads):
            longer = 0 if head is None else head.longer
            mask[row, width - length - longer :] = 1
            if head is not None and not known:
                ids[row, -length - longer :] = torch.tensor(head.put(ids[row, -length:].tolist()), device=device)
        positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        return ids, mask.to(device), positions.to(device)

    @property
    def _extra(self) -> int:
        """The number of positions by which the longest prompt of a policy exceeds the reference's."""
        return max([0, *(head.longer for head in self.heads.values())])

    def _repeated(self, position_ids: Tensor | None, sequences: int) -> Tensor | None:
        if position_ids is None:
            return None
        return position_ids.expand(sequences, -1).repeat_interleave(len(self.policies), 0)

    def _packed(self, cache: Cache | None) -> Cache:
        """Return the cache with layers for all policies; an empty one, as `generate` passes it, is changed in place."""
        cache = DynamicCache() if cache is None else cache
        if any(isinstance(layer, PackedLayer) for layer in cache.layers):
            return cache
        if cache.get_seq_length():
            raise InputError("cache: it was not filled by this mixture; begin with an empty one")
        count = self.network.config.get_text_config().num_hidden_layers
        cache.layers = [PackedLayer(len(self.policies), self._extra) for _ in range(count)]
        cache.layer_class_to_replicate = None
        return cache


AutoConfig.register(MixedPolicyConfig.model_type, MixedPolicyConfig, exist_ok=True)
AutoModelForCausalLM.register(MixedPolicyConfig, MixedPolicy, exist_ok=True)
