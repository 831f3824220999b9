"""Next-token events of a bank's responses, from which the mean of every next step is known exactly.

At each token every policy has a distribution over the vocabulary. It is recorded as events e: each token that ends a
response, the likeliest other tokens, and all remaining tokens together. For any λ, Π_k p_k(e)^{λ_k} is then known for
all events that were possible at a position, as well as for the one that occurred.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float64]

EVENTS = 16  # tokens that are kept beside those that end a response: the likeliest under any policy
LEAST = -1e4  # the smallest log-prob that differs from none


@dataclass(eq=False)
class StepRecord:
    """The next-token events of one response; lists have one entry per token.

    Attributes:
        sources: names of the policies and mixtures.
        ends: the number of tokens that end a response.
        events: [sources, E] log-probs, first those of the `ends` tokens that end a response, last that of all tokens
            that are not recorded one by one.
        drawn: the index of the event that occurred.
        said: [sources] log-probs of the token itself.
    """

    sources: list[str] = field(default_factory=list)
    ends: int = 0
    events: list[NDArray[np.float16]] = field(default_factory=list)
    drawn: list[int] = field(default_factory=list)
    said: list[NDArray[np.float32]] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Return the record for JSON, with arrays as base64 of their bytes."""
        packed = {"events": packed_array(np.stack(self.events)), "said": packed_array(np.stack(self.said))}
        return {"sources": self.sources, "ends": self.ends, "drawn": self.drawn, **packed}


def keep_events(
    records: Sequence[StepRecord], sources: list[str], log_probs: Tensor, tokens: Tensor, stop_ids: Sequence[int]
) -> None:
    """Append the events of one token to the records.

    Args:
        records: one per sequence.
        sources: names of the policies and mixtures, in the order of `log_probs`.
        log_probs: [sources, sequences, V], of the next token.
        tokens: [sequences], the tokens drawn.
        stop_ids: the tokens that end a response.
    """
    ends = torch.tensor(stop_ids, dtype=torch.long, device=log_probs.device)
    others = log_probs.amax(0).index_fill(-1, ends, -torch.inf)  # [sequences, V]
    likeliest = others.topk(min(EVENTS, others.shape[-1] - len(ends))).indices
    kept = torch.cat([ends.expand(len(others), -1), likeliest], -1)  # [sequences, E - 1]
    events = log_probs.gather(-1, kept.expand(len(log_probs), -1, -1))
    rest = torch.log1p(-events.exp().sum(-1, keepdim=True).clamp(max=1 - 1e-7))
    # Far below what is said, 16 bit know no number.
    whole = torch.cat([events, rest], -1).clamp(min=LEAST).half().transpose(0, 1).cpu().numpy()
    found = kept == tokens.unsqueeze(-1)
    drawn = torch.where(found.any(-1), found.int().argmax(-1), kept.shape[-1]).tolist()
    said = log_probs.gather(-1, tokens.expand(len(log_probs), -1).unsqueeze(-1))[..., 0].T.cpu().numpy()
    for i, record in enumerate(records):
        record.sources, record.ends = sources, len(stop_ids)
        record.events.append(whole[i])
        record.drawn.append(drawn[i])
        record.said.append(said[i])


def packed_array(array: NDArray[Any]) -> dict[str, Any]:
    """Return an array for JSON: dtype, shape, and its little-endian bytes as base64."""
    little = array.astype(array.dtype.newbyteorder("<"))
    return {"dtype": little.dtype.str, "shape": list(array.shape), "bytes": b64encode(little.tobytes()).decode()}


def unpacked_array(packed: dict[str, Any]) -> NDArray[Any]:
    """Return the array that `packed_array` packed; it is read-only."""
    return np.frombuffer(b64decode(packed["bytes"]), packed["dtype"]).reshape(packed["shape"])


@dataclass(frozen=True)
class Steps:
    """The H tokens of all N responses, concatenated. Q is the mixture of all proposals.

    Attributes:
        response: [H], the number of the token's response.
        ended: [N], whether the response ended by itself rather than at the length limit.
        ends: the number of events that end a response; they come first.
        events: [H, E, K], log-probs of the events under the policies.
        before: [H, K], log-probs of the tokens before this one under the policies.
        drawn: [H, K], log-probs of the event that occurred under the policies.
        log_before: [H], `before` under Q.
        log_drawn: [H], `drawn` under Q.
        last: [H], whether the event ended the response.
    """

    response: NDArray[np.int64]
    ended: NDArray[np.bool_]
    ends: int
    events: Array
    before: Array
    drawn: Array
    log_before: Array
    log_drawn: Array
    last: NDArray[np.bool_]

    def at(self, weights: Array) -> StepsAt:
        """Return the steps' importance weights at λ [K]."""
        so_far = np.exp(self.before @ weights - self.log_before)
        ratio = np.where(self.last, 0, np.exp(self.drawn @ weights - self.log_drawn))
        return StepsAt(self, so_far, ratio, np.exp(self.events @ weights))


@dataclass(frozen=True)
class StepsAt:
    """Steps at λ, with the importance weights w_t = Π_k π_k(y_<=t)^{λ_k} / Q(y_<=t).

    Attributes:
        steps: the tokens.
        so_far: [H], w_{t-1}.
        ratio: [H], w_t / w_{t-1} of the event that occurred; 0 if it ended the response.
        products: [H, E], Π_k p_k(e)^{λ_k}.
    """

    steps: Steps
    so_far: Array
    ratio: Array
    products: Array

    @cached_property
    def ending(self) -> Array:
        """The stopping-time terms [H]: the mean, given the tokens before, of w_t if the response ends here, else 0."""
        return self.so_far * self.products[:, : self.steps.ends].sum(-1)

    @cached_property
    def departure(self) -> Array:
        """The control variates [H]: w_t less its mean given the tokens before, over events that end no response.

        Their mean is zero, whichever events were recorded.
        """
        return self.so_far * (self.ratio - self.products[:, self.steps.ends :].sum(-1))

    def gradient(self, of_ending: Array, of_departure: Array) -> Array:
        """Return the gradient [K] of Σ_h of_ending [H] · ending + of_departure [H] · departure with respect to λ."""
        ends, departs = of_ending * self.so_far, of_departure * self.so_far
        pulls = self.products.copy()
        pulls[:, : self.steps.ends] *= ends[:, None]
        pulls[:, self.steps.ends :] *= -departs[:, None]
        events = self.steps.events
        found = pulls.reshape(-1) @ events.reshape(-1, events.shape[-1])
        found += (of_ending * self.ending + of_departure * self.departure) @ self.steps.before
        return found + (departs * self.ratio) @ self.steps.drawn


def gather_steps(rows: list[dict[str, Any]], policies: list[str], proposals: dict[str, float]) -> Steps:
    """Concatenate the steps of a bank's rows.

    Args:
        rows: the responses, each with its `StepRecord.as_dict()` under "steps".
        policies: the names of the K policies.
        proposals: {proposal: its fraction of the responses}.
    """
    sources = [*policies, *(name for name in proposals if name not in policies)]
    size = len(policies)
    with np.errstate(divide="ignore"):
        log_shares = np.log([proposals.get(name, 0.0) for name in sources])
    parts = []
    for number, row in enumerate(rows):
        kept = row["steps"]
        order = [kept["sources"].index(name) for name in sources]
        events = unpacked_array(kept["events"])[:, order].astype(float)  # [T, S, E]
        said = unpacked_array(kept["said"])[:, order].astype(float)
        came = np.array(kept["drawn"])
        drawn, before = events[np.arange(len(events)), :, came], said.cumsum(0) - said
        log_before = np.logaddexp.reduce(before + log_shares, -1)
        log_drawn = np.logaddexp.reduce(before + drawn + log_shares, -1) - log_before
        likely = events[:, :size].transpose(0, 2, 1)
        last = came < kept["ends"]
        parts.append(
            (np.full(len(events), number), likely, before[:, :size], drawn[:, :size], log_before, log_drawn, last)
        )
    response, likely, before, drawn, log_before, log_drawn, last = map(np.concatenate, zip(*parts, strict=True))
    ended = np.bincount(response, last, len(rows)) > 0
    return Steps(
        *(response, ended, rows[0]["steps"]["ends"], np.ascontiguousarray(likely)),
        *(before, drawn, log_before, log_drawn, last),
    )
