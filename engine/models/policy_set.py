"""PolicySet: the base with its adapters, the other models, and the policies that they compute."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from engine.config import REFERENCE, Adapted, Config, PolicySettings
from engine.errors import InputError
from engine.messages import Prompt, TokenPrompt
from engine.models.adapter_files import Unfoldable, adapter_folder
from engine.models.block_attention import use_blocks
from engine.models.chat_template import Chat, Chats
from engine.models.fingerprint import weights_fingerprint
from engine.models.folded_adapters import Adapters
from engine.models.gated_linear import Gate
from engine.models.general_adapters import is_unmerged, load_with_adapters
from engine.models.gguf import folder_of, needs_conversion
from engine.models.int8_linear import INT8
from engine.models.loading import load_model, load_tokenizer, pick_device, pick_dtype
from engine.models.lora import fold
from engine.models.model_limits import positions_of, shared_vocabulary, stops_of
from engine.models.prepacked_linear import pack
from engine.models.short_forward import ShortForward, can_shorten
from engine.models.token_prompts import TokenPrompts
from engine.rules.mixture import Mixture, make_mixture
from engine.rules.registry import DEFAULT_RULE
from engine.rules.soup import SOUP

log = logging.getLogger("mixdesk")


@dataclass(frozen=True)
class Policy:
    """A policy: a model with a gate and a prompt. `note` is the reason why it takes the general path, if it does."""

    name: str
    objective: str
    model: int  # index into PolicySet.models
    gate: tuple[float, ...] = ()
    system_prompt: str | None = None
    prefix: str | None = None
    note: str = ""
    chat: Chat | None = None  # how it reads conversations, where the reference reads them otherwise


class PolicySet:
    """All policies of a configuration, the reference first.

    Attributes:
        config: the configuration.
        base: the path or hub id of the base.
        policies: the policies, the reference first.
        by_name: {name: policy}.
        models: the base with adapters folded in, then the models of policies that cannot be folded (the general path).
        gates: the gate of each model; None for models without folded adapters.
        tokenizer: the base's tokenizer.
        chat: the shared chat format.
        vocabulary: the number of tokens to mix, if the models' vocabularies differ; otherwise None.
        device: the device of the models.
        notes: remarks on the policies, for the log and the page.
        reread: the numbers of models that recompute their whole text at every token.
        apart: the numbers of models that compute one row at a time.
        short: {number of a model: its shorter forward pass of a decoding step}, of the models that have one.
    """

    def __init__(self, config: Config, report: Callable[[str], None] = log.debug) -> None:
        """Load the policies of a configuration.

        Args:
            config: the configuration.
            report: called with one line before each part is loaded.

        Raises:
            InputError: a model or adapter cannot be loaded, or does not fit the base.
        """
        self.config, self.base = config, config.base
        self.notes: list[str] = []  # what there is to know of the policies, for the log and the page
        self.reread: set[int] = set()  # models that read their whole text again at every token
        self.apart: set[int] = set()  # models that read one row at a time
        self.device = pick_device(config.device)
        picked = pick_dtype(config.dtype, self.device)
        report("converting the base's GGUF file, once" if needs_conversion(config.base, picked) else "loading the base")
        folder_of(config.base, picked)  # whichever dtype is there serves the tokenizer
        self.tokenizer = load_tokenizer(config.base)
        base = load_model(config.base, config.dtype, self.device)
        adapters = Adapters(base, config.base, self.note)
        chats = Chats(self.tokenizer, config.chat_template_kwargs, stops_of(base))
        others: list[nn.Module] = []
        reference = config.reference or Adapted()
        placed: list[tuple[int, list[int], str]] = []  # of each policy, the reference first: model, columns, note
        for name, settings in ((REFERENCE, reference), *((policy.name, policy) for policy in config.policies)):
            if placed or settings.adapters:
                report(f"loading the policy {name}")
            model, columns, note = 0, [], ""
            if settings.adapters:
                for adapter in settings.adapters:
                    if any(adapter_folder(adapter).glob("tokenizer*")):
                        other = self._check_tokenizer(name, adapter)
                        if settings.chat_template == "own":
                            chats.add(name, other)
                try:
                    columns = adapters.columns(name, settings.adapters)
                except Unfoldable as reason:
                    said: list[str] = []
                    others.append(
                        load_with_adapters(
                            *(partial(load_model, config.base, config.dtype, self.device), settings.adapters),
                            *(config.base, said),
                        )
                    )
                    model, note = len(others), f"general path, since {reason}"
                    for words in said:
                        self.note(f"policy '{name}': {words}")
            elif isinstance(settings, PolicySettings) and settings.model:
                other = self._check_tokenizer(name, settings.model)
                if settings.chat_template == "own":
                    chats.add(name, other)
                others.append(load_model(settings.model, config.dtype, self.device))
                model, note = len(others), "general path, since it is a model of its own"
            elif placed:
                model, columns, _ = placed[0]  # the reference under another prompt
            if note:
                self.note(f"policy '{name}' takes the {note}: one more forward pass a step")
            placed.append((model, columns, note))
        chats.settle(REFERENCE)
        for words in chats.notes:
            log.info("%s", words)
        self.chat = chats.shared
        folded = fold(base, adapters.folded, adapters.layout) if adapters.folded else Gate(0)
        self.gates: list[Gate | None] = [folded, *(None for _ in others)]
        self.models = [model.eval().requires_grad_(False) for model in (base, *others)]
        self.vocabulary = shared_vocabulary(self.models, self.tokenizer)
        self.fingerprints = [weights_fingerprint(model) for model in self.models]
        for model in self.models:
            if not is_unmerged(model):
                pack(model, config.dtype == INT8)
            use_blocks(model)
        self.short = {index: ShortForward(model) for index, model in enumerate(self.models) if can_shorten(model)}
        gates = [tuple(float(i in columns) for i in range(len(adapters.folded))) for _, columns, _ in placed]
        model, _, note = placed[0]
        self.policies = [Policy(REFERENCE, REFERENCE, model, gates[0], note=note)]
        for policy, (model, _, note), gate in zip(config.policies, placed[1:], gates[1:], strict=True):
            self.policies.append(
                Policy(
                    *(policy.name, policy.objective, model, gate, policy.system_prompt, policy.prefix, note),
                    chat=chats.own.get(policy.name),
                )
            )
        self._gates: dict[int, list[tuple[float, ...]]] = {}  # of each model, as they are set
        self.by_name = {policy.name: policy for policy in self.policies}
        self.token_prompts = TokenPrompts(self)

    def note(self, words: str) -> None:
        """Add a remark on the policies to the log and to `notes`."""
        log.warning("%s", words)
        self.notes.append(words)

    @property
    def names(self) -> list[str]:
        """The names of the policies without the reference."""
        return [policy.name for policy in self.policies[1:]]

    @property
    def context(self) -> int:
        """The context length that all models support: the most tokens of prompt and response together."""
        return min(positions_of(model) for model in self.models)

    @cached_property
    def stop_ids(self) -> set[int]:
        """The tokens that end a turn: the tokenizer's, the models', and the one that the chat template writes."""
        ids = {self.tokenizer.eos_token_id, *self.chat.end[-1:]}
        for model in self.models:
            ids |= stops_of(model)
        return {i for i in ids if i is not None}

    def release(self) -> None:
        """Drop the references to the models; nothing can be computed afterwards."""
        self.models.clear()
        self.gates.clear()
        self.short.clear()

    def prompt_ids(self, policy: Policy, prompt: Prompt, date: str = "") -> list[int]:
        """Return the token ids of a prompt in a policy's chat template, with its system prompt and prefix.

        Args:
            policy: the policy.
            prompt: a text, messages, or token ids, which are read without a template.
            date: see `Chat.prompt_ids`.

        Raises:
            InputError: the template refuses the conversation, or the policy cannot read the token ids.
        """
        if isinstance(prompt, TokenPrompt):
            return self.token_prompts.ids(policy, prompt)
        return (policy.chat or self.chat).prompt_ids(prompt, policy.system_prompt, policy.prefix, date)

    def now(self) -> str:
        """Return the current date in ISO format, or "" if no template writes one."""
        return next((date for chat in [self.chat, *self._own_chats()] if (date := chat.now())), "")

    def _own_chats(self) -> list[Chat]:
        return [policy.chat for policy in self.policies if policy.chat]

    def read(self, policies: list[Policy], prompt: Prompt, date: str = "") -> dict[str, list[int]]:
        """Return {policy: token ids of a prompt}; see `prompt_ids`."""
        plain: list[int] | None = None
        found = {}
        for policy in policies:
            if policy.system_prompt or policy.prefix or policy.chat:
                found[policy.name] = self.prompt_ids(policy, prompt, date)
            else:
                plain = plain or self.prompt_ids(policy, prompt, date)
                found[policy.name] = plain
        return found

    def response_ids(self, response: str) -> list[int]:
        """Return the token ids of a response with the end of its turn."""
        return self.chat.response_ids(response)

    def text(self, ids: list[int]) -> str:
        """Return the text of a response's tokens, without the token that ends it."""
        said = ids[:-1] if ids and ids[-1] in self.stop_ids else ids
        return self.tokenizer.decode(said, skip_special_tokens=True, clean_up_tokenization_spaces=False)

    def spell(self, tokens: Sequence[int]) -> list[str]:
        """Return how each token is shown alone: its text, "(end)" for a stop token, else its vocabulary entry."""
        return [
            "(end)" if token in self.stop_ids else self.text([token]) or self.tokenizer.convert_ids_to_tokens(token)
            for token in tokens
        ]

    @torch.inference_mode()
    def teacher_forced(
        self, prompt: Prompt, response: list[int], date: str = "", names: Collection[str] | None = None
    ) -> dict[str, list[float]]:
        """Return {policy: log-probs of the response's tokens}, with one left-padded forward pass per model.

        `names` are those of the policies to compute; all if None.
        """
        found: dict[str, list[float]] = {}
        chosen = [policy for policy in self.policies if names is None or policy.name in names]
        for index in range(len(self.models)):
            policies = [policy for policy in chosen if policy.model == index]
            if not policies:
                continue
            rows = [[*self.prompt_ids(policy, prompt, date), *response] for policy in policies]
            # Of a long prompt's positions the logits would take more memory than the model.
            keep: dict[str, Any] = {} if index in self.apart else {"logits_to_keep": len(response) + 1}
            logits = self.forward(index, policies, *self.pad(rows), **keep)
            # The logits at a position are of the token after it; the rows are aligned at their right.
            log_probs = self.log_probs(logits[:, -len(response) - 1 : -1])
            wanted = torch.tensor(response, device=self.device).expand(len(rows), -1).unsqueeze(-1)
            for policy, row in zip(policies, log_probs.gather(-1, wanted)[..., 0].tolist(), strict=True):
                found[policy.name] = row
        return {policy.name: found[policy.name] for policy in chosen}

    def pad(self, rows: list[list[int]]) -> tuple[Tensor, Tensor]:
        """Return left-padded (ids, mask) of rows of token ids, both [rows, longest]."""
        longest = max(len(row) for row in rows)
        ids = torch.zeros(len(rows), longest, dtype=torch.long)
        mask = torch.zeros(len(rows), longest, dtype=torch.long)
        for i, row in enumerate(rows):
            ids[i, longest - len(row) :] = torch.tensor(row)
            mask[i, longest - len(row) :] = 1
        return ids.to(self.device), mask.to(self.device)

    def set_gates(self, index: int, policies: list[Policy]) -> None:
        """Set the policy of each row for a model's next forward passes."""
        gate, gates = self.gates[index], [policy.gate for policy in policies]
        if gate is not None and gates != self._gates.get(index):
            self._gates[index] = gates
            gate.set(torch.tensor(gates, dtype=self.models[index].dtype).to(self.device))

    def masks(self, index: int, mask: Callable[[int | None, int | None], Tensor]) -> Tensor | dict[str, Tensor]:
        """Return a model's attention masks in the form that it expects: one mask, or {layer type: mask}.

        Args:
            index: the model's number.
            mask: a function (window, chunk) that returns a mask; see `KVCache.attention_mask`.
        """
        config = self.models[index].config.get_text_config()
        window, chunk = getattr(config, "sliding_window", None), getattr(config, "attention_chunk_size", None)
        slides = window and getattr(config, "use_sliding_window", True)
        kinds = set(getattr(config, "layer_types", None) or ["sliding_attention" if slides else "full_attention"])
        shapes = {"sliding_attention": (window, None), "chunked_attention": (None, chunk)}
        made = {kind: mask(*shapes.get(kind, (None, None))) for kind in kinds}
        return made if len(made) > 1 else next(iter(made.values()))

    def log_probs(self, logits: Tensor) -> Tensor:
        """Return log-probs in float32 of logits [..., model's V], of the tokens that all models have: [..., V]."""
        return logits.float().log_softmax(-1)[..., : self.vocabulary]

    def soup(self, weights: Mapping[str, float]) -> Policy:
        """Return the policy of averaged adapters, θ_ref + Σ λ_k (θ_k - θ_ref) (Rewarded Soups, arXiv 2306.04488).

        Its gate is the weights. Raises InputError if a policy with weight is not a folded adapter.
        """
        shares = {**weights}
        rest = 1 - math.fsum(weights.values())
        if abs(rest) > 1e-9:  # weights that are not on the simplex
            shares[REFERENCE] = shares.get(REFERENCE, 0.0) + rest
        for name, weight in shares.items():
            policy = self.by_name[name]
            if weight and (policy.model or policy.system_prompt or policy.prefix):
                raise InputError(
                    f"rule: soup averages adapters, and '{name}' is "
                    f"{policy.note or 'a prompted policy'}; set its weight to 0, or take another rule"
                )
        columns = zip(*(self.by_name[name].gate for name in shares), strict=True)
        gate = tuple(math.fsum(w * g for w, g in zip(shares.values(), column, strict=True)) for column in columns)
        return Policy(SOUP, SOUP, 0, gate)

    def mixture(
        self,
        weights: Mapping[str, float] | None = None,
        rule: str = DEFAULT_RULE,
        gain: float = 1.0,
        exponent: float = 1.0,
    ) -> Mixture:
        """Return a checked mixture of these policies; no weights means uniform. Raises InputError."""
        mixture = make_mixture(weights, self.names, rule, gain, exponent)
        if mixture.averages_adapters:
            self.soup(mixture.weights)
        return mixture

    def rows_of(self, mixture: Mixture, trace: bool) -> list[Policy]:
        """Return the policies to compute for a mixture: those that it needs, or all of them for a trace."""
        soup = [self.soup(mixture.weights)] if mixture.averages_adapters else []
        return [*(p for p in self.policies if trace or p.name in mixture.needs), *soup]

    def acting(self, policy: Policy, mixture: Mixture) -> Policy:
        """Return the policy to compute under a mixture: a soup gets the mixture's weights as its gate."""
        return policy if policy.name != SOUP else self.soup(mixture.weights)

    def forward(self, index: int, policies: list[Policy], ids: Tensor, mask: Tensor, **settings: object) -> Tensor:
        """Return the logits [rows, positions, V] of left-padded ids, row i under policies[i].

        Args:
            index: the model's number.
            policies: the policy of each row.
            ids: [rows, positions].
            mask: [rows, positions], or longer at the left with a cache of what was before.
            settings: further arguments of the model.
        """
        if index in self.apart and len(ids) > 1 and not settings.get("use_cache"):
            return self._one_by_one(index, policies, ids, mask, settings)
        self.set_gates(index, policies)
        positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        return self.models[index](input_ids=ids, attention_mask=mask, position_ids=positions, **settings).logits

    def _one_by_one(
        self, index: int, policies: list[Policy], ids: Tensor, mask: Tensor, settings: Mapping[str, object]
    ) -> Tensor:
        """Return the result of `forward`, with each row computed alone and without padding."""
        rows = []
        for policy, row, seen in zip(policies, ids, mask.bool(), strict=True):
            own = row[seen][None]
            found = self.forward(index, [policy], own, torch.ones_like(own), **settings)
            rows.append(nn.functional.pad(found[0], (0, 0, ids.shape[1] - own.shape[1], 0)))
        return torch.stack(rows)

    def _check_tokenizer(self, name: str, source: str) -> PreTrainedTokenizerBase:
        """Return the tokenizer saved with a policy. Raises InputError unless its vocabulary is the base's."""
        other = load_tokenizer(source)
        own, base = other.get_vocab(), self.tokenizer.get_vocab()
        if own != base and {**base, **added_padding(other, base)} != own:
            raise InputError(
                f"policy '{name}': {source} has another tokenizer than the base ({len(other)} tokens, the base has "
                f"{len(self.tokenizer)}, or other ids); policies are mixed token by token: give one with the base's"
            )
        return other


def added_padding(tokenizer: PreTrainedTokenizerBase, base: Mapping[str, int]) -> dict[str, int]:
    """Return {padding token: id} of a tokenizer if the base lacks it and responses cannot have it, else {}."""
    pad, template = tokenizer.pad_token, str(tokenizer.chat_template or "")
    if pad is None or pad in base or pad in template or pad == tokenizer.eos_token:
        return {}
    return {pad: tokenizer.convert_tokens_to_ids(pad)}
