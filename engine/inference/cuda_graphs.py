"""Decode steps captured as CUDA graphs: on a GPU, launching a small model's kernels takes longer than running them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable

import torch
from torch import Tensor

log = logging.getLogger("mixdesk")

MOST = 8


class StepGraphs:
    """The captured steps of one model runner, one for each shape of its cache. On a CPU steps are run directly.

    A captured step must read its inputs from the same memory each time, and update its state in place.
    """

    def __init__(self, device: torch.device) -> None:
        self.wanted = device.type == "cuda"
        self._graphs: dict[Hashable, tuple[torch.cuda.CUDAGraph, Tensor]] = {}

    def run(self, key: Hashable, step: Callable[[], Tensor]) -> Tensor:
        """Run a step, and return its result, which is valid until the next run.

        Args:
            key: identifies the memory that the step reads and writes; it must change whenever that does.
            step: the step to run, or to replay if it was captured under this key.
        """
        if not self.wanted:
            return step()
        if key not in self._graphs:
            if len(self._graphs) >= MOST:
                self._graphs.clear()  # their slots have long been left
            result = step()  # also warms up what allocates or tunes itself at first use
            try:
                torch.cuda.synchronize()
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph):
                    kept = step()
            except RuntimeError as error:
                log.warning("this model's steps cannot be captured as CUDA graphs (%s); they are run one by one", error)
                self.wanted = False
                return result
            self._graphs[key] = (graph, kept)
            return result
        graph, kept = self._graphs[key]
        graph.replay()
        return kept
