"""A mixture as a Hugging Face model: `generate()` and all that is built on it work on a mixture."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor
from transformers import Cache, DynamicCache, DynamicLayer, GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from engine.cache import CACHE
from engine.config import DEMO, load_config
from engine.errors import InputError
from engine.mixing import Mixture, make_mixture
from engine.policies import PolicySet


class PackedLayer(DynamicLayer):
    """The keys and values of all policies of a sequence as if they were heads of one row, [sequences, policies * heads,
    positions, size], so that what transformers does to rows (beams, selecting, repeating) it does to sequences."""

    def __init__(self, policies: int) -> None:
        super().__init__()
        self.policies = policies

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        # [sequences * policies, heads, positions, size]
        rows = (-1, self.policies)
        packed = (part.unflatten(0, rows).flatten(1, 2) for part in (key_states, value_states))
        keys, values = super().update(*packed, *args, **kwargs)
        return tuple(part.unflatten(1, (self.policies, -1)).flatten(0, 1) for part in (keys, values))


class MixedPolicy(PreTrainedModel, GenerationMixin):
    """A mixture of the adapters of a PolicySet. Its logits are the mixture's log-probs.

    `model.mixture = model.mix({"helpful": 1})` changes the mixture, also between two calls that share a cache; the
    policies that may have weight are those of the mixture it was made with, unless trace is true. Raises InputError for
    a policy that is not folded into the base: it has a model or a prompt of its own.
    """

    main_input_name = "input_ids"
    # Whatever the base was loaded with: attention is its own affair.
    _supports_sdpa = _supports_flash_attn = _supports_flex_attn = True

    def __init__(self, policy_set: PolicySet, mixture: Mixture, trace: bool = False) -> None:
        config = copy.deepcopy(policy_set.models[0].config)
        super().__init__(config)
        self.policy_set = policy_set
        self.network = policy_set.models[0]
        self.generation_config = copy.deepcopy(self.network.generation_config)
        self.policies = policy_set.rows_of(mixture, trace)
        for policy in self.policies:
            if policy.model or policy.system_prompt or policy.prefix:
                raise InputError(
                    f"policy '{policy.name}' is {policy.note or 'a prompted policy'}; a mixture as one model "
                    "takes only adapters that are folded into the base; use the engine, or leave it out"
                )
        self.mixture = mixture

    @classmethod
    def from_config(
        cls, file: str | Path = DEMO, weights: Mapping[str, float] | None = None, trace: bool = False, **mixing: object
    ) -> MixedPolicy:
        """The mixture of a configuration's policies; mixing: rule, gain, exponent. Raises InputError."""
        policy_set = PolicySet(load_config(file))
        return cls(policy_set, make_mixture(weights, policy_set.names, **mixing), trace)  # type: ignore[arg-type]

    def mix(self, weights: Mapping[str, float] | None = None, **mixing: object) -> Mixture:
        """A checked mixture of these policies. Raises InputError."""
        return make_mixture(weights, self.policy_set.names, **mixing)  # type: ignore[arg-type]

    @property
    def tokenizer(self):
        return self.policy_set.tokenizer

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
        """input_ids [sequences, positions] -> logits [sequences, positions, V]: the mixture's log-probs, normalised.

        labels: the loss is the mean cross entropy of the token after each position, -100 left out. past_key_values:
        what transformers before 5.24 call the cache.
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
        logits = self.network(
            input_ids=input_ids.repeat_interleave(count, 0),
            attention_mask=None if attention_mask is None else attention_mask.repeat_interleave(count, 0),
            position_ids=self._repeated(position_ids, len(input_ids)),
            use_cache=use_cache,
            logits_to_keep=logits_to_keep,
            **{CACHE: cache},
        ).logits
        # [sequences * policies, positions, V] -> [policies, sequences, positions, V]
        log_probs = logits.float().log_softmax(-1).unflatten(0, (-1, count)).transpose(0, 1)
        mixtures = [self.mixture] * len(input_ids) * log_probs.shape[2]
        mixed = Mixture.mix(mixtures, log_probs.flatten(1, 2), names)
        mixed = mixed.unflatten(0, (len(input_ids), -1))
        loss = None
        if labels is not None:
            loss = torch.nn.functional.cross_entropy(mixed[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        return CausalLMOutputWithPast(loss=loss, logits=mixed, **{CACHE: cache if use_cache else None})

    def _repeated(self, position_ids: Tensor | None, sequences: int) -> Tensor | None:
        if position_ids is None:
            return None
        return position_ids.expand(sequences, -1).repeat_interleave(len(self.policies), 0)

    def _packed(self, cache: Cache | None) -> Cache:
        """The cache with layers that hold all policies; an empty one, as `generate` makes it, is changed in place."""
        cache = DynamicCache() if cache is None else cache
        if any(isinstance(layer, PackedLayer) for layer in cache.layers):
            return cache
        if cache.get_seq_length():
            raise InputError("cache: it was not filled by this mixture; begin with an empty one")
        count = self.network.config.num_hidden_layers
        cache.layers = [PackedLayer(len(self.policies)) for _ in range(count)]
        cache.layer_class_to_replicate = None
        return cache
