"""Exact sampling from π_λ by sequential Monte Carlo over the running batch.

Token-by-token decoding samples from the locally normalised q_λ (truncated by top-k, min-p and so on), which differs
from π_λ ∝ Π_k π_k^{λ_k}. N particles are decoded in parallel, each with the importance weight Π_k π_k^{λ_k} / q_λ. When
few particles carry most of the weight they are resampled: heavy ones are duplicated and light ones dropped (Gordon,
Salmond and Smith, 1993; for language models Lew et al., arXiv 2306.03081). The response is one of the final particles,
drawn by weight. With one particle this is plain decoding.

As in a bank, a policy means its distribution at the sampling's temperature, softmax(logits / T).
"""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import torch

from engine.errors import InputError
from engine.inference.batch import Batch
from engine.inference.sampler import Sampler
from engine.inference.sequence import Record, Sequence
from engine.rules.mixture import Mixture
from engine.sampling import Sampling

LOW_ESS_FRACTION = 0.5  # of the particles: with an effective sample size below it they are resampled


def check_particles(mixture: Mixture, sampling: Sampling, rows: int, max_rows: int) -> None:
    """Check that a response can be decoded with several particles.

    Args:
        mixture: the mixture to sample from.
        sampling: the settings, with more than one particle.
        rows: the number of rows that one particle needs.
        max_rows: the number of rows that the batch holds.

    Raises:
        InputError: the temperature is 0, the rule has no exact mixture, the particles do not fit the batch, or tokens
            have a bias.
    """
    if sampling.temperature == 0:
        raise InputError("particles: at temperature 0 they are all alike; give a temperature above 0, or 1 particle")
    if mixture.powers is None:
        raise InputError(f"particles: the rule is {mixture.rule}; only geometric has an exact mixture, take it")
    if sampling.particles * rows > max_rows:
        raise InputError(
            f"particles: {sampling.particles} of {rows} policies are {sampling.particles * rows} rows, and the batch "
            f"holds {max_rows}; give {max_rows // rows} or fewer"
        )
    if sampling.logit_bias:
        raise InputError("logit_bias: the exact mixture has none; give 1 particle, or no bias")


class Particles:
    """The N particles of one response.

    Attributes:
        powers: {policy: its exponent in π_λ}.
        sequences: the N particles, some of which may be finished.
    """

    def __init__(self, first: Sequence, seed: int) -> None:
        count = first.sampling.particles
        powers = first.mixture.powers
        assert powers is not None
        self.powers = powers
        # What resampling and the last choice are drawn with: the seed's own, so that one particle draws as ever.
        self._sampler = Sampler(first.sampling, (seed + count) % 2**63)
        self.sequences = [
            replace(first, sampler=Sampler(first.sampling, (seed + i) % 2**63), record=Record({})) for i in range(count)
        ]
        for seq in self.sequences:  # each has its own lists
            seq.tokens, seq.trace, seq.drawn_with = list(first.tokens), list(first.trace), list(first.drawn_with)
            seq.log_probs, seq.top_logprobs = [], []
        self._counted = [0.0] * count  # of each one's log weight, what went into the last resampling
        self._log_mean = 0.0  # sum over all resamplings of the log of the mean weight

    @property
    def log_weights(self) -> torch.Tensor:
        """The log weights [N] of the particles, since the last resampling."""
        found = []
        for seq, counted in zip(self.sequences, self._counted, strict=True):
            found.append(self._log_weight(seq) - counted)
        return torch.tensor(found, dtype=torch.double)

    @property
    def log_normaliser(self) -> float:
        """An estimate of log Σ_y Π_k π_k(y|x)^{λ_k}: its exponential is unbiased."""
        return self._log_mean + float(self.log_weights.logsumexp(0)) - math.log(len(self.sequences))

    @property
    def finished(self) -> bool:
        """Whether all particles are finished."""
        return all(seq.finish_reason is not None for seq in self.sequences)

    @property
    def error(self) -> Exception | None:
        """The error of the first particle that failed, if any."""
        return next((seq.error for seq in self.sequences if seq.error is not None), None)

    def resample(self, batch: Batch) -> None:
        """Resample the particles if their effective sample size is low, and update the batch's rows.

        Systematic resampling: one uniform number offsets N evenly spaced points (Carpenter, Clifford and Fearnhead,
        1999).
        """
        log_weights, count = self.log_weights, len(self.sequences)
        share = log_weights.softmax(0)
        if self.finished or 1 / float((share**2).sum()) >= LOW_ESS_FRACTION * count:
            return
        at = (torch.arange(count, dtype=torch.double) + self._sampler.uniform()) / count
        chosen = torch.searchsorted(share.cumsum(0), at, right=True).clamp(max=count - 1).tolist()
        self._log_mean += float(log_weights.logsumexp(0)) - math.log(count)
        free = [place for place in range(count) if place not in chosen]
        gone = [self.sequences[place] for place in free]
        copies: dict[int, list[Sequence]] = {}
        for place, again in pairwise(chosen):
            if again != place:
                continue
            seq, slot = self.sequences[place], free.pop()
            # It continues with the other's random numbers, or it would draw the same tokens again.
            copy = replace(
                seq,
                tokens=list(seq.tokens),
                trace=list(seq.trace),
                drawn_with=list(seq.drawn_with),
                log_probs=list(seq.log_probs),
                top_logprobs=list(seq.top_logprobs),
                sampler=self.sequences[slot].sampler,
                stop_finder=None,  # it finds its place by itself
                record=seq.record and replace(seq.record, log_probs=dict(seq.record.log_probs)),
            )
            self.sequences[slot] = copy
            copies.setdefault(place, []).append(copy)
        batch.evict(gone)
        for place, made in copies.items():
            if self.sequences[place].finish_reason is None:
                batch.fork(self.sequences[place], made)
        self._counted = [self._log_weight(seq) for seq in self.sequences]

    def choose(self) -> Sequence:
        """Return one of the particles, drawn by weight."""
        share = self.log_weights.softmax(0).cumsum(0)
        place = int(torch.searchsorted(share, self._sampler.uniform(), right=True))
        return self.sequences[min(place, len(self.sequences) - 1)]

    def _log_weight(self, seq: Sequence) -> float:
        """Return the log of Π_k π_k(y|x)^{λ_k} over the probability that y was drawn with."""
        record = seq.record
        if record is None or not record.log_probs:
            return 0.0
        return math.fsum(power * record.log_probs[name] for name, power in self.powers.items()) - record.drawn
