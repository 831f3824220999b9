"""The bank that a solver finds weights from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from engine.bank import collect_reference_free, collection
from engine.bank.estimate import Bank
from engine.bank.storage import BankFile
from engine.inference.engine import Engine
from engine.rules.mixture import Mixture
from engine.sampling import Sampling


@dataclass(frozen=True)
class BankRequest:
    """What a solver samples its bank with.

    Attributes:
        engine: the policies and rewards.
        prompts: the prompts to sample responses to.
        sampling: temperature and length; temperature 1 if None.
        seed: of the responses, and of what the solver draws itself.
        responses: the number of responses to each prompt.
        file: the bank file to read and extend.
        progress: called with the number of responses so far and in total.
        stopped: sampling is aborted when it returns true.
    """

    engine: Engine
    prompts: list[str]
    sampling: Sampling | None = None
    seed: int = 0
    responses: int = 24
    file: BankFile | None = None
    progress: Callable[[int, int], None] = lambda done, wanted: None
    stopped: Callable[[], bool] = lambda: False

    def collect(self, sources: dict[str, Mixture] | None = None, times: int = 1) -> Bank:
        """Sample the bank from these proposals, or the desk's, with `times` as many responses. Raises InputError."""
        return collection.collect(
            self.engine,
            self.prompts,
            self.responses * times,
            self.sampling,
            self.seed,
            sources,
            self.file,
            self.progress,
            self.stopped,
        )

    def collect_reference_free(self, times: int = 1) -> Bank:
        """Sample a reference-free bank with `times` as many responses. Raises InputError."""
        return collect_reference_free.collect_reference_free(
            self.engine,
            self.prompts,
            self.responses * times,
            self.sampling,
            self.seed,
            self.file,
            self.progress,
            self.stopped,
        )
