"""The table of Mixing Preference Optimization (arXiv 2502.18699), to compare with."""

from __future__ import annotations

# MPO, arXiv 2502.18699: Qwen2.5-7B on HH-RLHF, win rates in % against the reference.
PAPER = {
    "objectives": ["helpful", "harmless", "humorous"],
    "β = 0.1": {
        "helpful": [53.5, 51.2, 39.1],
        "harmless": [44.0, 61.2, 46.3],
        "humorous": [44.4, 46.5, 56.5],
        "rewarded soups": [44.8, 59.4, 56.4],
        "maxmin": [44.6, 56.1, 51.4],
        "mpo": [46.3, 53.1, 54.1],
    },
    "β = 0.5": {
        "rewarded soups": [51.9, 53.7, 50.0],
        "maxmin": [46.1, 53.8, 54.8],
        "mpo": [54.9, 53.1, 57.1],
    },
}
