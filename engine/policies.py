"""PolicySet: the base with its adapters, the other models, and which of them a policy is."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from jinja2 import TemplateError
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from engine.adapters import Gate, Lora, Unfoldable, adapter_folder, check_foldable, fold, read_lora
from engine.attention import use_blocks
from engine.config import REFERENCE, Adapted, Config, PolicySettings
from engine.errors import InputError
from engine.gguf import folder_of, is_gguf, needs_conversion
from engine.messages import BETWEEN, Message, Prompt, joined, messages_of
from engine.mixing import SOUP, Mixture
from engine.packed import pack

log = logging.getLogger("mixdesk")


@dataclass(frozen=True)
class Policy:
    """One policy: the model that computes it and how. `note` says why it takes the general path, if it does."""

    name: str
    objective: str
    model: int  # index into PolicySet.models
    gate: tuple[float, ...] = ()
    system_prompt: str | None = None
    prefix: str | None = None
    note: str = ""


class PolicySet:
    """All policies of a configuration, the reference first.

    models[0] is the base with the adapters folded in; what cannot be folded is a model of its own (the general path).
    """

    def __init__(self, config: Config, tell: Callable[[str], None] = log.debug) -> None:
        """tell: is told what is being loaded, as it begins. Raises InputError."""
        self.base = config.base
        self.device = pick_device(config.device)
        picked = pick_dtype(config.dtype, self.device)
        tell("converting the base's GGUF file, once" if needs_conversion(config.base, picked) else "loading the base")
        folder_of(config.base, picked)  # whichever dtype is there serves the tokenizer
        self.tokenizer = load_tokenizer(config.base)
        base = load_model(config.base, config.dtype, self.device)
        adapters = Adapters(base, config.base)
        others: list[nn.Module] = []
        reference = config.reference or Adapted()
        placed: list[tuple[int, list[int], str]] = []  # of each policy, the reference first: model, columns, note
        for name, settings in ((REFERENCE, reference), *((policy.name, policy) for policy in config.policies)):
            if placed or settings.adapters:
                tell(f"loading the policy {name}")
            model, columns, note = 0, [], ""
            if settings.adapters:
                for adapter in settings.adapters:
                    if any(adapter_folder(adapter).glob("tokenizer*")):
                        self._check_tokenizer(name, adapter)
                try:
                    columns = adapters.columns(name, settings.adapters)
                except Unfoldable as reason:
                    others.append(load_with_adapters(config.base, settings.adapters, config.dtype, self.device))
                    model, note = len(others), f"general path, since {reason}"
            elif isinstance(settings, PolicySettings) and settings.model:
                self._check_tokenizer(name, settings.model)
                others.append(load_model(settings.model, config.dtype, self.device))
                model, note = len(others), "general path, since it is a model of its own"
            elif placed:
                model, columns, _ = placed[0]  # the reference under another prompt
            if note:
                log.warning("policy '%s' takes the %s: one more forward pass a step", name, note)
            placed.append((model, columns, note))
        self.gates: list[Gate | None] = [fold(base, adapters.folded), *(None for _ in others)]
        self.models = [model.eval().requires_grad_(False) for model in (base, *others)]
        for model in self.models:
            pack(model)
            use_blocks(model)
        gates = [tuple(float(i in columns) for i in range(len(adapters.folded))) for _, columns, _ in placed]
        model, _, note = placed[0]
        self.policies = [Policy(REFERENCE, REFERENCE, model, gates[0], note=note)]
        for policy, (model, _, note), gate in zip(config.policies, placed[1:], gates[1:], strict=True):
            self.policies.append(
                Policy(policy.name, policy.objective, model, gate, policy.system_prompt, policy.prefix, note)
            )
        self._gates: dict[int, list[tuple[float, ...]]] = {}  # of each model, as they are set
        self.by_name = {policy.name: policy for policy in self.policies}

    @property
    def names(self) -> list[str]:
        """The component policies' names, without the reference."""
        return [policy.name for policy in self.policies[1:]]

    @property
    def context(self) -> int:
        """The most tokens that all models can hold, prompt and response together."""
        return min(getattr(model.config, "max_position_embeddings", None) or 2**31 for model in self.models)

    @property
    def stop_ids(self) -> set[int]:
        """The tokens that end a turn."""
        ids = {self.tokenizer.eos_token_id}
        for model in self.models:
            eos = model.generation_config.eos_token_id if model.generation_config else None
            ids |= set(eos) if isinstance(eos, list) else {eos}
        return {i for i in ids if i is not None}

    def release(self) -> None:
        """Let go of the models; nothing can be computed any more."""
        self.models.clear()
        self.gates.clear()

    def prompt_ids(self, policy: Policy, prompt: Prompt) -> list[int]:
        """Token ids of the prompt as this policy reads it: in the chat template, with its system prompt and prefix
        before the first message. Raises InputError where the template refuses the conversation."""
        first, *rest = messages_of(prompt)
        content = f"{policy.prefix or ''}{first['content']}"
        spoken = [{"role": "user", "content": content}, *rest]
        # Some templates know no system role; their models expect it before the user's first words.
        told = [{"role": "user", "content": f"{policy.system_prompt}{BETWEEN}{content}"}, *rest]
        if self.tokenizer.chat_template is None:
            return self.tokenizer(joined(told if policy.system_prompt else spoken)).input_ids
        try:
            if policy.system_prompt:
                try:
                    return self._template([{"role": "system", "content": policy.system_prompt}, *spoken])
                except TemplateError:
                    return self._template(told)
            return self._template(spoken)
        except TemplateError as error:
            raise InputError(f"prompt: the model's chat template refuses it: {first_line(error)}") from None

    def _template(self, messages: list[Message]) -> list[int]:
        return self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)

    def read(self, policies: list[Policy], prompt: Prompt) -> dict[str, list[int]]:
        """{policy: token ids of the prompt as it reads it}"""
        plain: list[int] | None = None
        found = {}
        for policy in policies:
            if policy.system_prompt or policy.prefix:
                found[policy.name] = self.prompt_ids(policy, prompt)
            else:
                plain = plain or self.prompt_ids(policy, prompt)
                found[policy.name] = plain
        return found

    def response_ids(self, response: str) -> list[int]:
        """Token ids of a response, ended as a model ends its turn."""
        ids = self.tokenizer(response, add_special_tokens=False).input_ids
        return ids if self.tokenizer.eos_token_id is None else [*ids, self.tokenizer.eos_token_id]

    def text(self, ids: list[int]) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)

    @torch.inference_mode()
    def teacher_forced(self, prompt: Prompt, response: list[int]) -> dict[str, list[float]]:
        """{policy: log-probs of the response's tokens}, each model one left-padded forward pass."""
        found: dict[str, list[float]] = {}
        for index in range(len(self.models)):
            policies = [policy for policy in self.policies if policy.model == index]
            if not policies:
                continue
            rows = [[*self.prompt_ids(policy, prompt), *response] for policy in policies]
            logits = self.forward(index, policies, *self.pad(rows))
            # The logits at a position are of the token after it; the rows are aligned at their right.
            log_probs = logits[:, -len(response) - 1 : -1].float().log_softmax(-1)
            wanted = torch.tensor(response, device=self.device).expand(len(rows), -1).unsqueeze(-1)
            for policy, row in zip(policies, log_probs.gather(-1, wanted)[..., 0].tolist(), strict=True):
                found[policy.name] = row
        return {policy.name: found[policy.name] for policy in self.policies}

    def pad(self, rows: list[list[int]]) -> tuple[Tensor, Tensor]:
        """Left-padded (ids, mask), both [rows, longest]."""
        longest = max(len(row) for row in rows)
        ids = torch.zeros(len(rows), longest, dtype=torch.long)
        mask = torch.zeros(len(rows), longest, dtype=torch.long)
        for i, row in enumerate(rows):
            ids[i, longest - len(row) :] = torch.tensor(row)
            mask[i, longest - len(row) :] = 1
        return ids.to(self.device), mask.to(self.device)

    def set_gates(self, index: int, policies: list[Policy]) -> None:
        """Say which policy each row of the model's next forward passes is."""
        gate, gates = self.gates[index], [policy.gate for policy in policies]
        if gate is not None and gates != self._gates.get(index):
            self._gates[index] = gates
            gate.set(torch.tensor(gates, dtype=self.models[index].dtype).to(self.device))

    def masks(self, index: int, mask: Callable[[int | None], Tensor]) -> Tensor | dict[str, Tensor]:
        """A model's attention masks in the form that it takes. mask: makes one for a sliding window, or for none."""
        config = self.models[index].config
        window = getattr(config, "sliding_window", None)
        kinds = set(getattr(config, "layer_types", None) or ["sliding_attention" if window else "full_attention"])
        made = {kind: mask(window if kind == "sliding_attention" else None) for kind in kinds}
        return made if len(made) > 1 else next(iter(made.values()))

    def soup(self, weights: Mapping[str, float]) -> Policy:
        """The policy of the averaged adapters, θ_ref + Σ λ_k (θ_k - θ_ref), by a gate of weights (Rewarded Soups,
        arXiv 2306.04488). Raises InputError if a policy is not an adapter that is folded in."""
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

    def rows_of(self, mixture: Mixture, trace: bool) -> list[Policy]:
        """The policies that a mixture is computed from: those that it needs, with a trace all of them."""
        soup = [self.soup(mixture.weights)] if mixture.rule == SOUP else []
        return [*(p for p in self.policies if trace or p.name in mixture.needs), *soup]

    def acting(self, policy: Policy, mixture: Mixture) -> Policy:
        """The policy as it acts under the mixture: a soup's gate follows the weights."""
        return policy if policy.name != SOUP else self.soup(mixture.weights)

    def forward(self, index: int, policies: list[Policy], ids: Tensor, mask: Tensor, **settings: object) -> Tensor:
        """Logits [rows, positions, V] of left-padded ids; row i is read as policies[i]."""
        self.set_gates(index, policies)
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        return self.models[index](input_ids=ids, attention_mask=mask, position_ids=positions, **settings).logits

    def _check_tokenizer(self, name: str, source: str) -> None:
        """A policy must read and write the base's tokens."""
        other = load_tokenizer(source)
        if other.get_vocab() != self.tokenizer.get_vocab():
            raise InputError(
                f"policy '{name}': {source} has another tokenizer than the base ({len(other)} tokens, the base has "
                f"{len(self.tokenizer)}, or other ids); policies are mixed token by token: give one with the base's"
            )


def pick_device(device: str) -> torch.device:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise InputError(f"device: found '{device}', but torch sees no GPU here; give auto or cpu")
    return torch.device(device)


def multiplies_bfloat16() -> bool:
    """Whether this CPU has products of bfloat16: a step of them takes six tenths of the time, and half the memory. On
    others 16 bit saves no time."""
    return any(getattr(torch.cpu, name, bool)() for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))


def pick_dtype(dtype: str, device: torch.device) -> torch.dtype | str:
    """auto: as stored on a GPU, and on a CPU that multiplies bfloat16; float32 on any other."""
    if dtype == "auto":
        return "auto" if device.type != "cpu" or multiplies_bfloat16() else torch.float32
    return getattr(torch, dtype)


class Adapters:
    """The adapters that are folded into the base, each once, however many policies have it."""

    def __init__(self, base: nn.Module, source: str) -> None:
        """source: the base's path or hub id."""
        self.base, self.source = base, source
        self.folded: list[Lora] = []
        self._columns: dict[str, int] = {}  # {adapter: its place in `folded`}

    def columns(self, name: str, adapters: list[str]) -> list[int]:
        """Return the gate's columns of a policy's adapters. Raises as `check_foldable` does, and then keeps none."""
        found = {}
        for adapter in adapters:
            if adapter not in self._columns:
                found[adapter] = read_lora(adapter)
                check_foldable(self.base, found[adapter])
        for adapter, lora in found.items():
            warn_of_another_base(name, lora, self.source)
            self._columns[adapter] = len(self.folded)
            self.folded.append(lora)
        return [self._columns[adapter] for adapter in adapters]


def warn_of_another_base(name: str, lora: Lora, base: str) -> None:
    """An adapter of another base can fit this one's shapes; all that tells is the base that it names."""
    named = Path(lora.source) / (lora.base or "")
    same = named.exists() and Path(base).exists() and named.resolve() == Path(base).resolve()
    if lora.base and not same and not names_base(lora.base, base):
        log.warning(
            "policy '%s': its adapter names '%s' as its base and is put on '%s'; right only if those are the same",
            *(name, lora.base, base),
        )


def names_base(named: str, base: str) -> bool:
    """Return whether `named` is the base's source, or what a GGUF file of it is called after."""
    if named == base:
        return True
    short, long = (Path(source.removesuffix(".gguf")).name.lower() for source in (named, base))
    return is_gguf(base) and bool(short) and long.startswith(short)


def first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def load_tokenizer(source: str) -> PreTrainedTokenizerBase:
    folder = folder_of(source)
    try:
        return AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise InputError(f"cannot load a tokenizer from '{source}': {first_line(error)}") from None


def load_model(source: str, dtype: str, device: torch.device) -> PreTrainedModel:
    """On its device; spread over all GPUs by accelerate where there are several and the configuration names none."""
    spread = device.type == "cuda" and device.index is None and torch.cuda.device_count() > 1
    picked = pick_dtype(dtype, device)
    folder = folder_of(source, picked)
    try:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=picked, device_map="auto" if spread else None)
        if dtype == "auto" and device.type == "cpu" and model.dtype == torch.float16:
            model = model.float()  # of 16 bit a CPU multiplies bfloat16 alone, and to round to that would lose bits
        return model if spread else model.to(device)
    except (OSError, ValueError) as error:
        raise InputError(f"cannot load a language model from '{source}': {first_line(error)}") from None


def load_with_adapters(base: str, adapters: list[str], dtype: str, device: torch.device) -> nn.Module:
    """A copy of the base with adapters, not all of which can be folded, merged into it by peft in this order."""
    from peft import PeftModel  # only the general path needs it, and it is slow to import

    model: nn.Module = load_model(base, dtype, device)
    for adapter in adapters:
        try:
            model = PeftModel.from_pretrained(model, adapter).merge_and_unload()
        except (RuntimeError, ValueError, OSError) as error:
            raise InputError(f"adapter '{adapter}' does not fit the base '{base}': {first_line(error)}") from None
    return model
