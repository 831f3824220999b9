"""Draw tokens from a next-token distribution."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import (
    RepetitionPenaltyLogitsProcessor,
)

from engine.errors import InputError
from engine.sampling import BANNED, Sampling


class Sampler:
    """The random numbers of one sequence: the same seed gives the same draws, independent of the rest of the batch."""

    def __init__(self, sampling: Sampling, seed: int) -> None:
        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
            raise InputError(f"seed: found {seed}; give a whole number from 0 to 2^63 - 1")
        self.sampling = sampling
        # On the CPU whatever the device, so that a seed means the same everywhere.
        self.generator = torch.Generator().manual_seed(seed)

        self._next: Tensor | None = None

    def peek(self) -> Tensor:
        """Return the next uniform number in [0, 1), in double precision; the same one until `uniform` has taken it."""
        if self._next is None:
            self._next = torch.rand((), dtype=torch.float64, generator=self.generator)
        return self._next

    def uniform(self) -> Tensor:
        """Take the next uniform number; see `peek`."""
        number, self._next = self.peek(), None
        return number


def warp(log_probs: Tensor, sampling: Sampling, said: Sequence[list[int]]) -> Tensor:
    """Apply the sampling's repetition penalty, bias, temperature and truncation to next-token log-probs.

    Args:
        log_probs: [sequences, V].
        sampling: the settings, the same for all sequences.
        said: the tokens of each response so far.

    Returns:
        Unnormalised scores [sequences, V] to draw tokens by.

    Raises:
        ValueError: a log-prob is NaN.
        InputError: the bias leaves no token.
    """
    if log_probs.isnan().any():
        raise ValueError("the mixture's log-probs are not numbers")
    scores = log_probs
    if sampling.repetition_penalty != 1:
        penalty = RepetitionPenaltyLogitsProcessor(float(sampling.repetition_penalty))
        rows = [torch.tensor([tokens], dtype=torch.long, device=scores.device) for tokens in said]
        scores = torch.cat([penalty(row, scores[i : i + 1]) for i, row in enumerate(rows)])
    if sampling.logit_bias:
        ids = torch.tensor([token for token, _ in sampling.logit_bias], device=scores.device)
        bias = [-math.inf if value == BANNED else value for _, value in sampling.logit_bias]
        scores = scores.index_add(-1, ids, torch.tensor(bias).to(scores).expand(len(scores), -1))
        if scores.isneginf().all(-1).any():
            raise InputError("logit_bias: it bans every token that the policies find possible; leave some")
    if sampling.temperature == 0:
        return scores
    # The warpers look at scores only.
    return sampling.warpers()(torch.empty(len(scores), 0, dtype=torch.long), scores)


def draw(scores: Tensor, samplers: Sequence[Sampler]) -> list[int]:
    """Draw one token for each row of `scores` [sequences, V]; the samplers must have the same Sampling.

    A draw inverts the cumulative distribution at the sequence's next uniform number. It does not depend on the other
    sequences, except through rounding when the number falls on the border of two tokens.
    """
    if samplers[0].sampling.temperature == 0:
        return scores.argmax(-1).tolist()
    cumulative = scores.softmax(-1).double().cumsum(-1)
    # Taken once all are there: a sampler that fails costs the others no number.
    uniform = torch.stack([sampler.peek() for sampler in samplers]).to(cumulative.device)
    # The first token whose cumulative probability is above the number, and so one of probability above zero.
    tokens = torch.searchsorted(cumulative, (uniform * cumulative[:, -1]).unsqueeze(-1), right=True)
    found = tokens.squeeze(-1).clamp(max=scores.shape[-1] - 1).tolist()
    for sampler in samplers:
        sampler.uniform()
    return found
