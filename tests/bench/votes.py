"""Leaderboards of simulated studies: how often 95% intervals hold the true strengths, and who is found careless.

Strengths are known; so are who is careless and what prompts and annotators add. The leaderboard that is weighted by
reliability is compared with the strengths of careful annotators; in each of its studies two are careless, or none. The
plain leaderboard is compared with the strengths in the votes of the whole population; in its studies every annotator is
careless with the same probability, as the interval is for other annotators of this population, too. Last comes the time
that one study's results take.

    python -m tests.bench.votes [--studies 200] [--resamples 400] [--seed 0]
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass

import numpy as np

from engine.votes.agreement import krippendorff_alpha
from engine.votes.annotators import annotator_reports, reliability_weights
from engine.votes.intervals import RATING
from engine.votes.leaderboard import Leaderboard, leaderboard
from engine.votes.table import Votes
from tests.engine.votes.studies import PUBLIC, population_strengths, public_votes, simulate

STRENGTHS = np.linspace(-1, 1, 5)
SHAPES = {
    "ten annotators, 40 prompts": {},
    "the same, alike within prompts and annotators": {"of_prompts": 0.7, "of_annotators": 0.2},
    "six annotators, 20 prompts": {"prompts": 20, "annotators": 6},
    "thirty annotators, 80 prompts, one vote": {"prompts": 80, "annotators": 30, "wanted": 1},
}
CARELESS = 2


@dataclass(frozen=True)
class Study:
    """A study's intervals. plain, weighted: [M], whether they hold the truth; found: the careless are the last."""

    plain: np.ndarray
    weighted: np.ndarray
    found: bool


def measure(
    rng: np.random.Generator,
    careless: int,
    resamples: int,
    of_prompts: float = 0.0,
    of_annotators: float = 0.0,
    **shape,
) -> Study:
    """Simulate one study, and return whether its intervals hold the truth; shape: of `simulate`."""
    strengths = rng.permutation(STRENGTHS)
    effects = {"of_prompts": of_prompts, "of_annotators": of_annotators}
    votes = simulate(rng, strengths, careless=careless, **effects, **shape)
    people = len(votes.annotators)
    sampled = simulate(rng, strengths, careless=int(rng.binomial(people, careless / people)), **effects, **shape)
    spread = float(np.hypot(of_prompts, of_annotators))
    reports = annotator_reports(votes)
    weighted = leaderboard(votes, resamples, weights=reliability_weights(votes, reports))
    everybody = population_strengths(strengths, careless=careless / people, spread=spread)
    careful = population_strengths(strengths, spread=spread)
    last = np.argsort([report.reliability for report in reports])[:careless]
    return Study(
        held(leaderboard(sampled, resamples), everybody), held(weighted, careful), set(last) == set(range(careless))
    )


def held(board: Leaderboard, truth: np.ndarray) -> np.ndarray:
    """Return whether each system's interval holds its true log-strength [M]."""
    low, high = np.array([(row.low, row.high) for row in board.systems]).T / RATING
    return (low <= truth) & (truth <= high)


def results(votes: Votes) -> float:
    """Return the seconds that everything takes: leaderboard, alpha, annotators."""
    start = time.perf_counter()
    leaderboard(votes)
    krippendorff_alpha(votes)
    annotator_reports(votes)
    return time.perf_counter() - start


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=200)
    parser.add_argument("--resamples", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(f"{options.studies} studies each, {len(STRENGTHS)} systems; share of 95% intervals that hold the truth")
    print(f"{'':<48}{'careless':>9}{'plain':>8}{'weighted':>10}{'found':>8}")
    for name, shape in SHAPES.items():
        for careless in (CARELESS, 0):
            rng = np.random.default_rng(options.seed)
            studies = [measure(rng, careless, options.resamples, **shape) for _ in range(options.studies)]
            plain, weighted = (np.mean([getattr(study, kind) for study in studies]) for kind in ("plain", "weighted"))
            found = f"{np.mean([study.found for study in studies]):.1%}" if careless else ""
            print(f"{name:<48}{careless:>9}{plain:>8.1%}{weighted:>10.1%}{found:>8}", flush=True)
    if PUBLIC.exists():
        votes = public_votes()
        results(votes)
        print(f"{len(votes):,} public votes: {min(results(votes) for _ in range(3)):.2f} s for everything")


if __name__ == "__main__":
    main()
