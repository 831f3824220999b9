"""Whether the running batch says of every model what the model says itself, and what to do where it does not.

A model is decoded in the batch with keys and values that are kept, beside rows of other lengths. Sliding windows,
chunks, positions that come from a mask or a length: whatever the batch does not know of shows only in texts that are
longer than the window, or beside a neighbour. So each model is compared at load with its own uncached forward pass of
one row alone, on a short row and one longer than the smallest window, which is made small for this where its
configuration says how large it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from engine.config import REFERENCE
from engine.errors import InputError, one_line
from engine.inference.model_runner import ModelRunner
from engine.inference.sampler import Sampler
from engine.inference.sequence import Sequence
from engine.inference.thread_tuning import most_threads
from engine.models.block_attention import takes_blocks, use_blocks
from engine.models.fingerprint import keep_result, recall
from engine.models.policy_set import Policy, PolicySet
from engine.rules.mixture import Mixture
from engine.sampling import Sampling

WINDOW = 4  # positions of a window while a model is looked at
STEPS = 5  # tokens one by one: a row of 2 becomes longer than the window
LONGEST = 640  # tokens; a fixed window that is larger is not looked at
PLAIN = "give a decoder with a standard cache of keys and values, such as Llama, Qwen, Mistral, Gemma or GPT-2"


def check_decoding(policy_set: PolicySet) -> None:
    """Look at every model, and choose how it is decoded.

    Where a model's log-probs differ in the batch, its text is read again at every token; where they differ beside
    another row, one row is read at a time. Both are noted with the difference that was measured.

    Raises InputError for a model that cannot be decoded here at all: one without a standard cache of keys and values,
    or one that reads its positions from something other than position_ids.
    """
    for index, model in enumerate(policy_set.models):
        if not any(policy.model == index for policy in policy_set.policies):
            continue  # the base, where no policy can be folded into it
        key = policy_set.fingerprints[index] and f"decoded {policy_set.fingerprints[index]} {policy_set.device.type}"
        found = recall(key)
        if found is None:
            with few_threads(policy_set, index):
                found = look_at(policy_set, index)
            keep_result(key, found)
        use_blocks(model, bool(found["blocks"]))
        kind = model_kind(model)
        if found["apart"]:
            policy_set.apart.add(index)
            policy_set.note(
                f"model '{kind}' is read one row at a time: beside another row its log-probs differ by "
                f"{found['apart']:.2g}"
            )
        if found["reread"]:
            policy_set.reread.add(index)
            policy_set.note(
                f"model '{kind}' reads its whole text again at every token, which is slow: decoded with a cache its "
                f"log-probs differ by {found['reread']:.2g}"
            )
    with few_threads(policy_set, 0):
        note_alike(policy_set)


@contextmanager
def few_threads(policy_set: PolicySet, index: int) -> Iterator[None]:
    """Compute a small model's few tokens with one thread meanwhile: several would mostly wait for each other."""
    before = most_threads()
    if policy_set.device.type == "cpu" and policy_set.fingerprints[index] is None:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def look_at(policy_set: PolicySet, index: int) -> dict[str, Any]:
    """Return how a model must be decoded: blocks, whether its attention may be the blocked one; reread and apart, the
    differences that were measured where it must not be cached, or not be beside another row, else 0."""
    model = policy_set.models[index]
    blocks = takes_blocks(model)
    try:
        check_model(policy_set, index)
    except InputError:
        if not blocks:
            raise
        # It may do more with its keys than hand them to its attention.
        use_blocks(model, False)
        blocks = False
        check_model(policy_set, index)
    with small_windows(model):
        apart = differs(model, *beside_another(policy_set, index))
        reread = 0.0 if apart else differs(model, *decoded(policy_set, index))
        if reread and blocks:
            use_blocks(model, False)
            blocks = False
            reread = differs(model, *decoded(policy_set, index))
    return {"blocks": blocks, "reread": reread or apart, "apart": apart}


@torch.inference_mode()
def check_model(policy_set: PolicySet, index: int) -> None:
    """Raises InputError for a model that cannot be decoded here even where a text is short."""
    model = policy_set.models[index]
    policy = a_policy(policy_set, index)
    tokens = [i % model.config.get_text_config().vocab_size for i in range(1, 9)]
    kind = model_kind(model)
    try:
        runner = ModelRunner(policy_set, index, static=False)
        rows = [a_sequence(policy, tokens[:length]) for length in (3, 6)]
        runner.admit([(seq, policy) for seq in rows])
        for i in range(2):
            for seq in rows:
                seq.tokens.append(tokens[len(seq.prompt_ids[policy.name]) + i])
            runner.step()
        at_once = policy_set.forward(index, [policy] * 2, *policy_set.pad([tokens[:5], tokens]), use_cache=False)
        wanted = policy_set.log_probs(at_once[:, -1])
        apart = (runner.log_probs.exp() - wanted.exp()).abs().max().item()
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"model '{kind}' cannot be decoded here ({one_line(error)}); {PLAIN}") from None
    if wanted.isnan().any():
        raise InputError(
            f"model '{kind}' gives log-probs that are not numbers: weights of it are NaN or too large; give an earlier "
            "checkpoint, or another dtype"
        )
    if not apart < 0.05:  # far above what 16 bits round; a wrong position or mask is far above it
        raise InputError(
            f"model '{kind}' cannot be decoded here (with a cache it gives other probabilities, by {apart:.2f}); "
            f"{PLAIN}"
        )


def lengths(model: PreTrainedModel) -> tuple[int, int]:
    """Tokens of a short row and of one that is longer than the model's smallest window."""
    config = model.config.get_text_config()
    window = max(fixed_window(config), 2 * WINDOW)
    room = (getattr(config, "max_position_embeddings", None) or LONGEST) - STEPS - 1
    return 2, max(3, min(window + 7, room))


def fixed_window(config: Any) -> int:
    """The smallest window that is built into the model, where its configuration cannot make it smaller."""
    found = [getattr(config, name, None) for name in ("window_size", "attention_window_size", "local_attention")]
    return min((one for one in found if isinstance(one, int) and 0 < one <= LONGEST), default=0)


@contextmanager
def small_windows(model: PreTrainedModel) -> Iterator[None]:
    """Let the windows that a model reads from its configuration at every forward pass be small meanwhile."""
    config = model.config.get_text_config()
    before = {
        name: value
        for name in ("sliding_window", "attention_chunk_size")
        if isinstance(value := getattr(config, name, None), int) and value > WINDOW
    }
    try:
        for name in before:
            setattr(config, name, WINDOW)
        yield
    finally:
        for name, value in before.items():
            setattr(config, name, value)


def some_tokens(policy_set: PolicySet, model: PreTrainedModel, count: int) -> list[int]:
    """Return `count` token ids of the model's vocabulary, the same at every call."""
    size = policy_set.vocabulary or model.config.get_text_config().vocab_size
    return torch.randint(size, (count,), generator=torch.Generator().manual_seed(0)).tolist()


@torch.inference_mode()
def alone(policy_set: PolicySet, index: int, policy: Policy, ids: list[int]) -> Tensor:
    """[V] log-probs of the token after these, by the model's own forward pass of nothing else."""
    logits = policy_set.forward(index, [policy], *policy_set.pad([ids]), use_cache=False)
    return policy_set.log_probs(logits[0, -1])


@torch.inference_mode()
def beside_another(policy_set: PolicySet, index: int) -> tuple[Tensor, Tensor]:
    """[2, V] log-probs after a short and a long row that are read beside each other, and alone."""
    model, policy = policy_set.models[index], a_policy(policy_set, index)
    tokens = some_tokens(policy_set, model, max(lengths(model)))
    rows = [tokens[:length] for length in lengths(model)]
    logits = policy_set.forward(index, [policy] * 2, *policy_set.pad(rows), use_cache=False)
    wanted = torch.stack([alone(policy_set, index, policy, row) for row in rows])
    return policy_set.log_probs(logits[:, -1]), wanted


@torch.inference_mode()
def decoded(policy_set: PolicySet, index: int) -> tuple[Tensor, Tensor]:
    """[moments * 2, V] log-probs of a short and a long row that are decoded together, token by token, and what the
    model says of each alone."""
    model, policy = policy_set.models[index], a_policy(policy_set, index)
    tokens = some_tokens(policy_set, model, max(lengths(model)) + STEPS)
    rows = [a_sequence(policy, tokens[:length]) for length in lengths(model)]
    runner = ModelRunner(policy_set, index, static=False)
    runner.admit([(seq, policy) for seq in rows])
    found, wanted = [], []
    for step in range(STEPS + 1):
        if step:
            for seq in rows:
                seq.tokens.append(tokens[len(seq.prompt_ids[policy.name]) + len(seq.tokens)])
            runner.step()
        if step in (0, STEPS):
            found.append(runner.log_probs.clone())
            order = [seq for seq, _ in runner.rows]
            read = [[*seq.prompt_ids[policy.name], *seq.tokens] for seq in order]
            wanted.append(torch.stack([alone(policy_set, index, policy, row) for row in read]))
    return torch.cat(found), torch.cat(wanted)


def differs(model: nn.Module, found: Tensor, wanted: Tensor) -> float:
    """The largest difference of two log-probs, 0 where it is no more than rounding."""
    apart = (found - wanted).abs().max().item()
    if next(model.parameters()).dtype == torch.float32:
        return apart if not apart < 1e-3 else 0.0
    # 16 bits round unlikely tokens by more than a wrong mask changes likely ones: what counts is how far the
    # distributions are apart, which rounding moves by a few hundredths and a wrong mask by most of 1.
    distance = (found.exp() - wanted.exp()).abs().sum(-1).max().item() / 2
    return apart if not distance < 0.2 else 0.0


@torch.inference_mode()
def note_alike(policy_set: PolicySet) -> None:
    """Note the policies that are no different from the reference, which the reader expects them to be."""
    reference = policy_set.policies[0]
    try:
        ids = {policy.name: policy_set.prompt_ids(policy, "Hello") for policy in policy_set.policies}
    except InputError:  # the template refuses it: prompts will tell
        return
    known: dict[Policy, Tensor] = {}
    for policy in policy_set.policies:
        if ids[policy.name] == ids[REFERENCE]:
            known[policy] = alone(policy_set, policy.model, policy, ids[REFERENCE]).cpu()
    for policy, log_probs in known.items():
        if policy is reference or (log_probs - known[reference]).abs().max().item() > 1e-5:
            continue
        why = "its adapter or model changes nothing"
        if policy.system_prompt or policy.prefix:
            why = "the chat template leaves its system prompt out"
        policy_set.note(f"policy '{policy.name}' says what the reference says: {why}")


def a_policy(policy_set: PolicySet, index: int) -> Policy:
    """Return a policy that is computed with this model."""
    return next(policy for policy in policy_set.policies if policy.model == index)


def a_sequence(policy: Policy, ids: list[int]) -> Sequence:
    """Return a sequence of one policy with this prompt."""
    sampling = Sampling()
    return Sequence("", Mixture({REFERENCE: 1.0}), sampling, Sampler(sampling, 0), [policy], {policy.name: ids})


def model_kind(model: nn.Module) -> str:
    """Return the model's type, as its configuration names it."""
    return str(getattr(model.config, "model_type", type(model).__name__))
