"""Whether every model of a configuration can be decoded here."""

from __future__ import annotations

import torch

from engine.attention import takes_blocks, use_blocks
from engine.batch import Lane, Sequence
from engine.config import REFERENCE
from engine.errors import InputError
from engine.mixing import Mixture
from engine.policies import PolicySet, first_line
from engine.sampling import Sampler, Sampling


def check(policy_set: PolicySet) -> None:
    """Decode a little with every model, and compare with reading the same at once.

    Raises InputError for a model that cannot be decoded here: one without a standard cache of keys and values, or one
    that reads its positions from something other than position_ids.
    """
    for index, model in enumerate(policy_set.models):
        if not any(policy.model == index for policy in policy_set.policies):
            continue  # the base, where no policy can be folded into it
        try:
            check_model(policy_set, index)
        except InputError:
            if not takes_blocks(model):
                raise
            # It may do more with its keys than hand them to its attention.
            use_blocks(model, False)
            check_model(policy_set, index)


@torch.inference_mode()
def check_model(policy_set: PolicySet, index: int) -> None:
    model = policy_set.models[index]
    policy = next(policy for policy in policy_set.policies if policy.model == index)
    tokens = [i % model.config.get_text_config().vocab_size for i in range(1, 9)]
    kind = getattr(model.config, "model_type", type(model).__name__)
    try:
        lane = Lane(policy_set, index, static=False)
        rows = []
        for length in (3, 6):
            sampling = Sampling()
            ids = {policy.name: tokens[:length]}
            rows.append(Sequence("", Mixture({REFERENCE: 1.0}), sampling, Sampler(sampling, 0), [policy], ids))
        lane.join([(seq, policy) for seq in rows])
        for i in range(2):
            for seq in rows:
                seq.tokens.append(tokens[len(seq.prompt_ids[policy.name]) + i])
            lane.step()
        at_once = policy_set.forward(index, [policy] * 2, *policy_set.pad([tokens[:5], tokens]), use_cache=False)
        apart = (lane.log_probs.exp() - at_once[:, -1].float().softmax(-1)).abs().max().item()
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"model '{kind}' cannot be decoded here ({first_line(error)}); give a decoder with a standard cache of "
            "keys and values, such as Llama, Qwen, Mistral, Gemma or GPT-2"
        ) from None
    if not apart < 0.05:  # far above what 16 bits round; a wrong position or mask is far above it
        raise InputError(
            f"model '{kind}' cannot be decoded here (with a cache it gives other probabilities, by {apart:.2f}); "
            "give a decoder with a standard cache of keys and values, such as Llama, Qwen, Mistral, Gemma or GPT-2"
        )
