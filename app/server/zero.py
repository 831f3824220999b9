"""ZeroGPU: a Space that gets a GPU only inside functions marked @spaces.GPU, each call in a process forked for it.

The engine's worker is a thread of the main process, which has no GPU there: everything runs on the Space's CPU. What
ZeroGPU demands all the same is one marked function, and a report that the app is up; it sends that itself only from
Blocks.launch, which is not how this app starts. Tested against a stand-in for the package alone.
"""

from __future__ import annotations

import importlib
import importlib.util


def on_zero() -> bool:
    """Whether this is a Space on ZeroGPU."""
    if importlib.util.find_spec("spaces") is None:
        return False
    return bool(importlib.import_module("spaces.config").Config.zero_gpu)


def report() -> None:
    """Tell ZeroGPU that the app is up."""
    importlib.import_module("spaces").GPU(unused)
    importlib.import_module("spaces.zero").startup()


def unused() -> None:
    """Marked, since an app without a marked function is stopped; never called."""
