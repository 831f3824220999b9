"""Weights from human ratings: the maximal lottery over the rated mixtures (Kreweras 1965; Fishburn 1984).

The lottery is the Nash equilibrium of the game in which both players choose a mixture, and win with the probability
that raters prefer it (Nash learning from human feedback, arXiv 2312.00886): no mixture wins more than half of the
comparisons against it. It needs no reward model and no scale of quality, and exists even if preferences are cyclic.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import linprog

from engine.bank.collection import Array
from engine.config import REFERENCE
from engine.errors import InputError
from engine.rules.mixture import Mixture
from engine.solvers.ratings import Rating
from engine.solvers.solution import Solution
from engine.solvers.solver import Solver

DIGITS = 2  # mixtures whose weights agree so far are one mixture
SMOOTHING = 1.0  # wins that every mixture is given against every other, beside those that were rated
ENOUGH = 10  # ratings of a pair: its share of wins has a standard error of 16 points, or less
REPEATS = 200  # draws from the posterior
SLACK = 1000.0  # see maximal_lottery


def nash(policies: list[str], ratings: list[Rating], seed: int = 0) -> Solution:
    """Return the mean weights of the maximal lottery, Σ p_m λ_m, with standard errors from posterior draws.

    The win rate of a pair has the posterior Beta(wins + SMOOTHING, losses + SMOOTHING), whose mean is the rate that
    `payoffs` uses (Laplace's rule of succession; Gelman et al., Bayesian Data Analysis, 3rd ed., section 2.4). The
    standard errors are the spread of the lotteries of rates drawn from these posteriors. Resampling the ratings, as the
    bootstrap does, would give no spread when ratings are few and unanimous, the case in which intervals from the
    observed rate alone are known to fail (Brown, Cai and DasGupta 2001, doi.org/10.1214/ss/1009213286). After 3 wins of
    3 a rate is below a half with probability (1/2)^4, so that all the weight is the winner's, with a standard error of
    √(1/16 · 15/16) = 24 points. The rate of a pair that never met has a uniform posterior.

    The solution's objective is the excess over a half of the best mixture's win rate against the lottery, which is 0 up
    to rounding; objective_error is the root mean square of the same figure over the draws.

    Args:
        policies: the names of the policies.
        ratings: pairwise ratings of mixtures of these policies.
        seed: of the posterior draws.

    Raises:
        InputError: there are no ratings, or all are of one mixture.
    """
    mixtures, pairs = group(ratings)
    if not ratings:
        raise InputError("ratings: found no overall one of responses that were not steered; rate some at the desk")
    if len(mixtures) < 2:
        raise InputError("ratings: all are of one mixture; rate responses of two mixtures or more against each other")
    names = [*policies, REFERENCE]
    weights_of = np.array([[mixture.weights.get(name, 0.0) for name in names] for mixture in mixtures])
    wins = np.array([rating.left_wins for rating in ratings])
    won = tally(pairs, wins, len(mixtures))
    payoff = payoffs(won)
    lottery = maximal_lottery(payoff)
    rng = np.random.default_rng(seed)
    lotteries, beaten = [], []
    for _ in range(REPEATS):
        other = resampled(won, rng)
        lotteries.append(maximal_lottery(other))
        beaten.append((other @ lottery).max())
    weights = dict(zip(names, (lottery @ weights_of).tolist(), strict=True))
    errors = dict(zip(names, np.std(np.array(lotteries) @ weights_of, 0).tolist(), strict=True))
    if not weights_of[:, -1].any():
        del weights[REFERENCE], errors[REFERENCE]
    return Solution(
        method=SOLVER.name,
        weights=weights,
        weight_errors=errors,
        objective=float((payoff @ lottery).max()),
        objective_error=float(np.sqrt(np.mean(np.square(beaten)))),
        ess_fraction=0.0,
        gap=duality_gap(payoff, lottery),
        policy_tokens=0,
        path=[list(weights.values())],
        lottery=[
            {**mixture.as_dict(), "probability": float(p), "error": float(error)}
            for mixture, p, error in zip(mixtures, lottery, np.std(lotteries, 0), strict=True)
        ],
        note=note(mixtures, won, len(ratings)),
    )


def group(ratings: list[Rating]) -> tuple[list[Mixture], np.ndarray]:
    """Return the distinct mixtures in order of appearance, and the numbers [ratings, 2] of the left and right ones."""
    places: dict[tuple, int] = {}
    mixtures: list[Mixture] = []
    pairs = []
    for rating in ratings:
        pair = []
        for mixture in (rating.left, rating.right):
            rounded = tuple(sorted((name, round(w, DIGITS)) for name, w in mixture.weights.items() if round(w, DIGITS)))
            key = (rounded, mixture.rule, mixture.gain, mixture.exponent if mixture.takes_exponent else None)
            if key not in places:
                places[key] = len(mixtures)
                mixtures.append(mixture)
            pair.append(places[key])
        pairs.append(pair)
    return mixtures, np.array(pairs, dtype=int).reshape(-1, 2)


def payoffs(won: Array) -> Array:
    """Return the win rate of each mixture against each other, less a half, [M, M], from the `tally` of wins.

    Rates are (wins + SMOOTHING) / (ratings + 2 SMOOTHING), so that a single rating is not certainty, and a pair without
    ratings has a rate of a half.
    """
    return (won - won.T) / 2 / (won + won.T + 2 * SMOOTHING)


def resampled(won: Array, rng: np.random.Generator) -> Array:
    """Return payoffs [M, M] with the rate of each pair drawn from its posterior."""
    above = np.triu(rng.beta(won + SMOOTHING, won.T + SMOOTHING) - 0.5, 1)
    return above - above.T


def tally(pairs: np.ndarray, left_wins: Array, mixtures: int) -> Array:
    """Return the number of comparisons that each mixture won against each other, [M, M], a tie counting a half."""
    won = np.zeros((mixtures, mixtures))
    np.add.at(won, (pairs[:, 0], pairs[:, 1]), left_wins)
    np.add.at(won, (pairs[:, 1], pairs[:, 0]), 1 - left_wins)
    np.fill_diagonal(won, 0)  # a mixture against itself says nothing
    return won


def too_few(won: Array) -> str:
    """Return a warning if pairs have fewer than ENOUGH ratings on average, otherwise ""."""
    each = won.sum() / (len(won) * (len(won) - 1) / 2)
    if each >= ENOUGH:
        return ""
    return (
        f"too few ratings for the weights to mean much: {each:.2g} a pair, where some {ENOUGH} tell a preference from "
        "chance"
    )


def maximal_lottery(payoff: Array) -> Array:
    """Return probabilities p [M] with (payoff p)_m <= 0 for all m, by linear programming.

    Of several optima, the result is the one that maximises the smallest probability among mixtures that can have any.
    One more variable t does this: t is maximised subject to p_m - SLACK (payoff p)_m >= t. Mixtures with a negative
    payoff against p have probability zero in every optimum (strict complementarity).

    Args:
        payoff: [M, M], antisymmetric.

    Raises:
        RuntimeError: the linear program was not solved.
    """
    size = len(payoff)
    found = linprog(
        np.append(np.zeros(size), -1.0),
        A_ub=np.block([[payoff, np.zeros((size, 1))], [SLACK * payoff - np.eye(size), np.ones((size, 1))]]),
        b_ub=np.zeros(2 * size),
        A_eq=[[*np.ones(size), 0.0]],
        b_eq=[1.0],
        bounds=[(0, None)] * (size + 1),
        method="highs",
        options={"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10},
    )
    if found.x is None:
        raise RuntimeError(f"the linear program of the lottery was not solved: {found.message}")
    lottery = found.x[:-1].clip(0)
    return lottery / lottery.sum()


def duality_gap(payoff: Array, lottery: Array) -> float:
    """Return the best response's payoff against a lottery less the lottery's smallest payoff; 0 at the equilibrium."""
    return float((payoff @ lottery).max() - (lottery @ payoff).min())


def note(mixtures: list[Mixture], won: Array, ratings: int) -> str:
    """Return the solution's note: the numbers of ratings, mixtures and rated pairs, and any warnings.

    Args:
        mixtures: the M distinct mixtures.
        won: [M, M], see `tally`.
        ratings: the number of ratings.
    """
    size = len(mixtures)
    met = int((won + won.T)[np.triu_indices(size, 1)].astype(bool).sum())
    said = f"{ratings} ratings of {size} mixtures; {met} of {size * (size - 1) // 2} pairs met"
    if few := too_few(won):
        said += f"; {few}"
    if len({(mixture.rule, mixture.gain) for mixture in mixtures}) > 1:
        said += "; they differ in rule or gain, which the mean weights leave out: see the lottery"
    return said


SOLVER = Solver(
    name="nash",
    paper="maximal lotteries (Kreweras, 1965; Fishburn, 1984); NLHF, arXiv 2312.00886",
    summary="by people’s ratings, a lottery over mixtures that no mixture beats",
    find=nash,
    from_ratings=True,
    order=5,
)
