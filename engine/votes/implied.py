"""How often scores of responses, such as a reward model's or a policy's implied reward, agree with people's votes."""

from __future__ import annotations

import numpy as np

from engine.votes.ballots import FIRST_WINS, NEITHER, ballots_of, countable
from engine.votes.intervals import UNKNOWN, Interval, Z, t_quantile, wilson
from engine.votes.resampling import clustering_of, clusters_of
from engine.votes.table import Votes


def score_agreement(votes: Votes, difference: np.ndarray) -> Interval:
    """Return the share of votes for the response with the higher score, with its 95% interval.

    Votes for neither do not count, nor repeats, nor votes with a missing difference; equal scores agree by half. It is
    Wilson's interval for as many independent votes as have the variance of these, clustered by prompts and annotators.

    Args:
        votes: The votes; their own weights count.
        difference: [N], score of the first response less that of the second.
    """
    ballots = ballots_of(votes)
    difference = difference[countable(votes)]
    known = np.isfinite(difference) & (ballots.result != NEITHER)
    ballots, difference = ballots.where(known), difference[known]
    number = len(ballots)
    if not number:
        return UNKNOWN
    first = ballots.result == FIRST_WINS
    agrees = np.where(difference == 0, 0.5, (first == (difference > 0)).astype(float))
    weight = ballots.weight / ballots.weight.sum()
    share = min(float(weight @ agrees), 1.0)
    influence = (weight * (agrees - share))[:, None]
    clustering = clustering_of(influence, clusters_of(ballots.prompt, ballots.annotator))
    effective = 1 / float((weight**2).sum())
    if clustering.variance > 0:
        effective = share * (1 - share) / clustering.variance
    effective = min(effective, number) * (Z / t_quantile(clustering.degrees)) ** 2
    interval = wilson(share * effective, effective)
    return Interval(share, interval.low, interval.high, number)
