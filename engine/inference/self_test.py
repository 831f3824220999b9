"""Self-test at load: the running batch must give the same log-probs as each model's own forward pass.

The batch decodes with cached keys and values, beside rows of other lengths. Features that it does not support, such as
an unknown kind of sliding window, chunks, or positions derived from a mask or a length, show only in texts longer than
the window or beside another row. So each model is compared with its own uncached forward pass of a single row, on a
short row and on one longer than the smallest window. The window is made small for the test if the configuration sets
its size.
"""

from __future__ import annotations

import logging
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

log = logging.getLogger("mixdesk")

WINDOW = 4  # positions of a window while a model is looked at
STEPS = 5  # tokens one by one: a row of 2 becomes longer than the window
LONGEST = 640  # tokens; a fixed window that is larger is not looked at
PLAIN = "give a decoder with a standard cache of keys and values, such as Llama, Qwen, Mistral, Gemma or GPT-2"


def check_decoding(policy_set: PolicySet) -> None:
    """Test every model, and choose how it is decoded.

    A model whose log-probs change with a cache recomputes its whole text at every token (`PolicySet.reread`); one whose
    log-probs change beside another row computes one row at a time (`PolicySet.apart`). Both are noted with the measured
    difference. Results are cached by the model's fingerprint.

    Raises:
        InputError: a model cannot be decoded, because it has no standard key-value cache, or does not take positions
            from position_ids.
    """
    for index, model in enumerate(policy_set.models):
        if not any(policy.model == index for policy in policy_set.policies):
            continue  # the base, where no policy can be folded into it
        fingerprint, dtype = policy_set.fingerprints[index], policy_set.config.dtype
        key = fingerprint and f"decoding {fingerprint} {policy_set.device.type} {dtype}"
        found = recall(key)
        if found is None:
            with few_threads(policy_set, index):
                found = look_at(policy_set, index)
            keep_result(key, found)
        use_blocks(model, bool(found["blocks"]))
        if not found["short"]:
            policy_set.short.pop(index, None)
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
    """Use one thread for a small model within the context, whose few tokens would not profit from several."""
    before = most_threads()
    if policy_set.device.type == "cpu" and policy_set.fingerprints[index] is None:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def look_at(policy_set: PolicySet, index: int) -> dict[str, Any]:
    """Test a model, and return how it must be decoded.

    Returns:
        {"blocks": whether it can use block attention, "short": whether its steps can take its ShortForward,
        "reread": the measured difference if it must be decoded without a cache, otherwise 0,
        "apart": the measured difference if rows must be computed one at a time, otherwise 0}.

    Raises:
        InputError: the model cannot be decoded.
    """
    model = policy_set.models[index]
    blocks = takes_blocks(model)
    short = blocks and index in policy_set.short and is_short_right(policy_set, index)
    if not short:
        policy_set.short.pop(index, None)
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
        reread = 0.0 if apart or short else differs(model, *decoded(policy_set, index))
        if reread and blocks:
            use_blocks(model, False)
            blocks = False
            reread = differs(model, *decoded(policy_set, index))
    return {"blocks": blocks, "short": short, "reread": reread or apart, "apart": apart}


def is_short_right(policy_set: PolicySet, index: int) -> bool:
    """Return whether steps by the model's ShortForward give the log-probs of its own forward pass."""
    try:
        check_model(policy_set, index)
        with small_windows(policy_set.models[index]):
            return not differs(policy_set.models[index], *decoded(policy_set, index))
    except Exception as error:  # what the modules of another release raise
        log.info("steps of '%s' take its own forward pass: %s", model_kind(policy_set.models[index]), one_line(error))
        return False


@torch.inference_mode()
def check_model(policy_set: PolicySet, index: int) -> None:
    """Decode two short rows with a cache. Raises InputError if the model fails, or its probabilities are wrong."""
    model = policy_set.models[index]
    policy = a_policy(policy_set, index)
    tokens = [i % model.config.get_text_config().vocab_size for i in range(1, 9)]
    kind = model_kind(model)
    try:
        rows = [a_sequence(policy, tokens[:length]) for length in (3, 6)]
        runner = runner_that_read(policy_set, index, rows)
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
    """Return the lengths of a short row and of a row longer than the model's smallest window, in tokens."""
    config = model.config.get_text_config()
    window = max(fixed_window(config), 2 * WINDOW)
    room = (getattr(config, "max_position_embeddings", None) or LONGEST) - STEPS - 1
    return 2, max(3, min(window + 7, room))


def fixed_window(config: Any) -> int:
    """Return the model's smallest window that is fixed when it is built; 0 if there is none up to LONGEST."""
    found = [getattr(config, name, None) for name in ("window_size", "attention_window_size", "local_attention")]
    return min((one for one in found if isinstance(one, int) and 0 < one <= LONGEST), default=0)


@contextmanager
def small_windows(model: PreTrainedModel) -> Iterator[None]:
    """Set the windows that a model reads from its configuration at every forward pass to WINDOW within the context."""
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
    """Return `count` random token ids, always the same."""
    size = policy_set.vocabulary or model.config.get_text_config().vocab_size
    return torch.randint(size, (count,), generator=torch.Generator().manual_seed(0)).tolist()


@torch.inference_mode()
def alone(policy_set: PolicySet, index: int, policy: Policy, ids: list[int]) -> Tensor:
    """Return the next-token log-probs [V] after `ids`, from the model's uncached forward pass of this row alone."""
    logits = policy_set.forward(index, [policy], *policy_set.pad([ids]), use_cache=False)
    return policy_set.log_probs(logits[0, -1])


@torch.inference_mode()
def beside_another(policy_set: PolicySet, index: int) -> tuple[Tensor, Tensor]:
    """Return the next-token log-probs [2, V] of a short and a long row computed together, and computed alone."""
    model, policy = policy_set.models[index], a_policy(policy_set, index)
    tokens = some_tokens(policy_set, model, max(lengths(model)))
    rows = [tokens[:length] for length in lengths(model)]
    logits = policy_set.forward(index, [policy] * 2, *policy_set.pad(rows), use_cache=False)
    wanted = torch.stack([alone(policy_set, index, policy, row) for row in rows])
    return policy_set.log_probs(logits[:, -1]), wanted


@torch.inference_mode()
def decoded(policy_set: PolicySet, index: int) -> tuple[Tensor, Tensor]:
    """Return log-probs of a short and a long row decoded together with a cache, and of each computed alone.

    Both are [2 * 2, V]: of the first and the last step.
    """
    model, policy = policy_set.models[index], a_policy(policy_set, index)
    tokens = some_tokens(policy_set, model, max(lengths(model)) + STEPS)
    rows = [a_sequence(policy, tokens[:length]) for length in lengths(model)]
    runner = runner_that_read(policy_set, index, rows)
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
    """Return the largest difference between two tensors of log-probs; 0 if it is within rounding errors."""
    apart = (found - wanted).abs().max().item()
    if next(model.parameters()).dtype == torch.float32:
        return apart if not apart < 1e-3 else 0.0
    # 16 bits round unlikely tokens by more than a wrong mask changes likely ones: what counts is how far the
    # distributions are apart, which rounding moves by a few hundredths and a wrong mask by most of 1.
    distance = (found.exp() - wanted.exp()).abs().sum(-1).max().item() / 2
    return apart if not distance < 0.2 else 0.0


@torch.inference_mode()
def note_alike(policy_set: PolicySet) -> None:
    """Note the policies whose log-probs equal the reference's, which is probably a mistake in the configuration."""
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


def runner_that_read(policy_set: PolicySet, index: int, sequences: list[Sequence]) -> ModelRunner:
    """Return a model's runner that has read sequences of one policy each."""
    runner = ModelRunner(policy_set, index, static=False)
    for reading in runner.begin([(seq, seq.policies[0]) for seq in sequences]):
        while reading.left:
            runner.read(reading, 0)
    runner.join(sequences)
    return runner


def a_policy(policy_set: PolicySet, index: int) -> Policy:
    """Return the first policy that is computed with a model."""
    return next(policy for policy in policy_set.policies if policy.model == index)


def a_sequence(policy: Policy, ids: list[int]) -> Sequence:
    """Return a sequence of one policy with these prompt ids."""
    sampling = Sampling()
    return Sequence("", Mixture({REFERENCE: 1.0}), sampling, Sampler(sampling, 0), [policy], {policy.name: ids})


def model_kind(model: nn.Module) -> str:
    """Return the model's type, such as "llama", for messages."""
    return str(getattr(model.config, "model_type", type(model).__name__))
