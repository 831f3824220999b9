"""ZeroGPU: Spaces that get a GPU only inside functions marked @spaces.GPU, each call in a forked process.

The engine's worker is a thread of the main process, which has no GPU there, so everything runs on the Space's CPU.
ZeroGPU still requires one marked function and a report that the app is up, which it sends itself only from
Blocks.launch; this app starts differently. Tested only against a stand-in for the package.
"""

from __future__ import annotations

import importlib
import importlib.util


def on_zero() -> bool:
    """Return whether this is a Space on ZeroGPU."""
    if importlib.util.find_spec("spaces") is None:
        return False
    return bool(importlib.import_module("spaces.config").Config.zero_gpu)


def report() -> None:
    """Report to ZeroGPU that the app is up."""
    importlib.import_module("spaces").GPU(unused)
    importlib.import_module("spaces.zero").startup()


def unused() -> None:
    """Do nothing; never called. It is marked because ZeroGPU stops an app without a marked function."""
