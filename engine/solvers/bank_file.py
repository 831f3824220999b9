"""The bank file that a solver reads and extends."""

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
    """Return the bank file for a solver.

    That is the desk's bank; for `bsmd`, a bank of the reference's responses; for `mpo`, a reference-free bank if
    `lean` is true and the desk's bank has fewer than `responses` responses to each of the prompts.
    """
    sources = solver.proposals(engine)
    file = BankFile(engine.config, sampling, sources, seed)
    if solver.reference_free and lean and whole_rounds(file.read(), prompts) * len(sources) < responses:
        file = BankFile(engine.config, sampling, reference_free_proposals(engine), seed)
    return file
