"""What the tokens of a bank's responses were drawn among, from which the mean of every next step is known exactly.

Before each token all policies say how likely every token is. Of that are kept: the tokens that end a response, the
likeliest others, and all the rest together; each is an event e. For any λ, Π_k p_k(e)^{λ_k} then is known of what could
have come at every place, as well as of what came.
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
LEAST = -1e4  # the smallest log-prob that is told from none


@dataclass(eq=False)
class StepRecord:
    """Of one response, a list entry a token. events [sources, E]: log-probs, first those of the `ends` tokens that end
    a response, last that of all tokens that are not kept; drawn: which it was; said [sources]: of the token itself."""

    sources: list[str] = field(default_factory=list)
    ends: int = 0
    events: list[NDArray[np.float16]] = field(default_factory=list)
    drawn: list[int] = field(default_factory=list)
    said: list[NDArray[np.float32]] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """For JSON; arrays as base64 of their bytes."""
        packed = {"events": packed_array(np.stack(self.events)), "said": packed_array(np.stack(self.said))}
        return {"sources": self.sources, "ends": self.ends, "drawn": self.drawn, **packed}


def keep_events(
    records: Sequence[StepRecord], sources: list[str], log_probs: Tensor, tokens: Tensor, stop_ids: Sequence[int]
) -> None:
    """log_probs [sources, sequences, V] of the token to come, tokens [sequences] those that were drawn."""
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
    """Return an array as JSON values: dtype, shape, and bytes in base64, little-endian."""
    little = array.astype(array.dtype.newbyteorder("<"))
    return {"dtype": little.dtype.str, "shape": list(array.shape), "bytes": b64encode(little.tobytes()).decode()}


def unpacked_array(packed: dict[str, Any]) -> NDArray[Any]:
    """Return the array that `packed_array` has packed."""
    return np.frombuffer(b64decode(packed["bytes"]), packed["dtype"]).reshape(packed["shape"])


@dataclass(frozen=True)
class Steps:
    """The H tokens of all N responses, one after another.

    response [H]: which one; ended [N]: whether it came to its end, and was not cut off. events [H, E, K]: log-probs
    under the policies, the first `ends` of events that end a response. Under the policies, before [H, K]: the log-prob
    of all that was said before; drawn [H, K]: of the event that came. log_before [H], log_drawn [H]: the same under
    what the responses were drawn from, the mixture Q of all proposals. last [H]: whether the event ended the response.
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
        """weights: λ [K]"""
        so_far = np.exp(self.before @ weights - self.log_before)
        ratio = np.where(self.last, 0, np.exp(self.drawn @ weights - self.log_drawn))
        return StepsAt(self, so_far, ratio, np.exp(self.events @ weights))


@dataclass(frozen=True)
class StepsAt:
    """Steps at λ, with w_t = Π_k π_k(y_<=t)^{λ_k} / Q(y_<=t): so_far [H] is w_{t-1}, ratio [H] is w_t / w_{t-1} of the
    event that came, or 0 where it ended the response, products [H, E] are Π_k p_k(e)^{λ_k}."""

    steps: Steps
    so_far: Array
    ratio: Array
    products: Array

    @cached_property
    def ending(self) -> Array:
        """[H], the mean of w_t if the response ends there and else 0, given what was said before."""
        return self.so_far * self.products[:, : self.steps.ends].sum(-1)

    @cached_property
    def departure(self) -> Array:
        """[H], of w_t from its mean, given what was said before, over the events that do not end the response. Its own
        mean is zero, whichever events were kept."""
        return self.so_far * (self.ratio - self.products[:, self.steps.ends :].sum(-1))

    def gradient(self, of_ending: Array, of_departure: Array) -> Array:
        """Of Σ_h of_ending [H] · ending + of_departure [H] · departure with respect to λ -> [K]"""
        ends, departs = of_ending * self.so_far, of_departure * self.so_far
        pulls = self.products.copy()
        pulls[:, : self.steps.ends] *= ends[:, None]
        pulls[:, self.steps.ends :] *= -departs[:, None]
        events = self.steps.events
        found = pulls.reshape(-1) @ events.reshape(-1, events.shape[-1])
        found += (of_ending * self.ending + of_departure * self.departure) @ self.steps.before
        return found + (departs * self.ratio) @ self.steps.drawn


def gather_steps(rows: list[dict[str, Any]], policies: list[str], proposals: dict[str, float]) -> Steps:
    """From responses' rows, each with its StepRecord as a dict. proposals {source: its share of the responses}."""
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
