"""A solver: how weights are found."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from engine.bank.collect_reference_free import reference_free_proposals
from engine.bank.collection import proposals
from engine.bank.storage import BankFile, whole_rounds
from engine.inference.engine import Engine
from engine.rules.mixture import Mixture
from engine.sampling import Sampling
from engine.solvers.bank_request import BankRequest
from engine.solvers.solution import Solution


@dataclass(frozen=True)
class Solver:
    """A solver, as a module of this package defines it under the name SOLVER.

    Attributes:
        name: on the command line and in results.
        paper: the source, with an arXiv number or a citation.
        summary: what the weights are, in words that continue "Balance found weights".
        find: `(request: BankRequest, **options) -> Solution`, or with `from_ratings`
            `(policies, ratings, seed) -> Solution`.
        from_ratings: whether it takes people's ratings instead of a bank.
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

    def with_file(self, request: BankRequest, sampling: Sampling, lean: bool = True) -> BankRequest:
        """Return the request with this solver's bank file, which is the file of a bank with its `proposals`.

        If that file has too few responses, the solver is `reference_free` and `lean` allows it, it is the file of a
        reference-free bank instead.
        """
        sources = self.proposals(request.engine)
        file = BankFile(request.engine.config, sampling, sources, request.seed)
        if self.reference_free and lean:
            kept = whole_rounds(file.read(), request.prompts) * len(sources)
            if kept < request.responses:
                sources = reference_free_proposals(request.engine)
                file = BankFile(request.engine.config, sampling, sources, request.seed)
        return replace(request, sampling=sampling, file=file)
