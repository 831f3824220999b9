"""Which bank's file a solver reads and adds to."""

from __future__ import annotations

from engine.bank.collect_reference_free import lean_proposals
from engine.bank.collection import proposals
from engine.bank.storage import BankFile, whole_rounds
from engine.config import REFERENCE
from engine.inference.engine import Engine
from engine.rules.mixture import Mixture
from engine.sampling import Sampling


def solver_sources(solver: str, engine: Engine) -> dict[str, Mixture]:
    """Return the proposals of a solver's bank that is not lean: the reference alone for `bsmd`."""
    return proposals(engine) if solver != "bsmd" else {REFERENCE: engine.mixture({REFERENCE: 1.0})}


def solver_file(
    solver: str,
    engine: Engine,
    prompts: list[str],
    sampling: Sampling,
    seed: int,
    responses: int,
    lean: bool = True,
) -> BankFile:
    """Return the file of the desk's bank, of the reference's responses for `bsmd`, or, for `mpo` where the desk's bank
    has too few responses and `lean` allows it, of a lean bank.
    """
    sources = solver_sources(solver, engine)
    file = BankFile(engine.config, sampling, sources, seed)
    if solver == "mpo" and lean and whole_rounds(file.read(), prompts) * len(sources) < responses:
        file = BankFile(engine.config, sampling, lean_proposals(engine), seed)
    return file
