"""A solver: how weights are found."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from engine.bank.collection import proposals
from engine.inference.engine import Engine
from engine.rules.mixture import Mixture
from engine.solvers.solution import Solution


@dataclass(frozen=True)
class Solver:
    """A solver, as a module of this package defines it under the name SOLVER.

    Attributes:
        name: on the command line and in results.
        paper: the source, with an arXiv number or a citation.
        summary: what the weights are, in words that continue "Balance found weights".
        find: `(engine, prompts, sampling, seed, responses, file=, progress=, stopped=, **options) -> Solution`, or with
            `from_ratings` `(policies, ratings, seed) -> Solution`.
        from_ratings: whether it takes people's ratings instead of an engine and prompts.
        options: {keyword argument of `find`: the command line's option for it}, each `objective=number,...`.
        proposals: the mixtures that its bank is sampled from.
        reference_free: whether a bank without the reference will do, which costs less.
        order: the position in lists.
    """

    name: str
    paper: str
    summary: str
    find: Callable[..., Solution]
    from_ratings: bool = False
    options: Mapping[str, str] = field(default_factory=dict)
    proposals: Callable[[Engine], dict[str, Mixture]] = proposals
    reference_free: bool = False
    order: int = 100
