"""The bank file that a solver reads and adds to."""

from __future__ import annotations

from engine.bank.collect_reference_free import reference_free_proposals
from engine.bank.storage import BankFile, whole_rounds
from engine.inference.engine import Engine
from engine.sampling import Sampling
from engine.solvers.solver import Solver


def solver_file(
    solver: Solver,
    engine: Engine,
    prompts: list[str],
    sampling: Sampling,
    seed: int,
    responses: int,
    lean: bool = True,
) -> BankFile:
    """Return the file of the bank with the solver's proposals.

    If that has too few responses, the solver needs no reference in its bank and `lean` allows it, return the file of a
    reference-free bank.
    """
    sources = solver.proposals(engine)
    file = BankFile(engine.config, sampling, sources, seed)
    if solver.reference_free and lean and whole_rounds(file.read(), prompts) * len(sources) < responses:
        file = BankFile(engine.config, sampling, reference_free_proposals(engine), seed)
    return file
