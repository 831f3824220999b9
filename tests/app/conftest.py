from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from app.storage.database import Store
from engine import Completion, Mixture, Sampling


def make_completion(text: str = "Rinse it with cold water.", prompt: str = "A stain?", **changes) -> Completion:
    settings = {
        "prompt": prompt,
        "text": text,
        "tokens": [5, 6, 7],
        "mixture": Mixture({"helpful": 0.25, "terse": 0.75}, "power", 1.5, -0.5),
        "sampling": Sampling(max_new_tokens=40, temperature=0.35, top_k=3, top_p=0.9, min_p=0.01),
        "seed": 2**62 + 1,
        "finish_reason": "end",
        "trace": [],
        "rewards": {"helpful": 1.25, "concise": -3.0},
    }
    return Completion(**{**settings, **changes})


@pytest.fixture
def completion() -> Callable[..., Completion]:
    return make_completion


@pytest.fixture
def store(tmp_path: Path):
    store = Store(tmp_path / "ratings" / "mixdesk.db")
    yield store
    store.close()
