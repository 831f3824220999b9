"""A bank that ships beside its configuration, and the one of the bundled policies."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from engine import InputError, sampling
from engine.bank import collection
from engine.bank.collection import collect, kept, proposals
from engine.bank.storage import BankFile
from engine.cli.solve import solve_command
from engine.config import DEMO, REFERENCE
from engine.inference.engine import Engine
from engine.prompts import read_prompts
from tests.engine.bank.test_bank import SAMPLING
from tests.engine.conftest import PROMPTS, Small

MEND = (
    "the bundled policies changed and their bank did not: "
    "rm data/configs/banks/demo-*.jsonl; python -m engine solve --ship"
)


def test_the_bundled_policies_have_their_bank(tmp_path: Path) -> None:
    with Engine.from_config(DEMO) as engine:
        file = BankFile(engine.config, collection.SAMPLING, proposals(engine), folder=tmp_path)
        assert [path.name for path in (DEMO.parent / "banks").iterdir()] == [file.shipped.name], MEND
        bank = kept(engine, read_prompts(engine.config.prompts or "")[: collection.PROMPTS], file)
    assert bank is not None and bank.rewards.shape[:2] == (collection.PROMPTS, collection.RESPONSES), MEND
    assert file.shipped.stat().st_size < 1e6
    # At a corner F is 0, within the error: what was rounded is still the policies' own.
    for corner in np.eye(len(bank.policies)):
        estimate = bank.estimate(corner)
        assert abs(estimate.objective) < 4 * estimate.error


def test_the_command_line_solves_with_the_bank_that_ships() -> None:
    defaults = {name: parameter.default for name, parameter in inspect.signature(solve_command).parameters.items()}
    assert (defaults["limit"], defaults["responses"], defaults["seed"]) == (collection.PROMPTS, collection.RESPONSES, 0)
    assert (defaults["max_new_tokens"], defaults["temperature"]) == (160, 0.7)
    assert sampling.Sampling(160, 0.7) == collection.SAMPLING


def test_a_shipped_bank_is_read_and_a_stale_one_is_not(small: Callable[[int, int], Small], tmp_path: Path) -> None:
    engine = small(2, 0).engine
    file = BankFile(engine.config, SAMPLING, proposals(engine), folder=tmp_path / "one")
    assert kept(engine, PROMPTS[:2], file) is None
    sampled = collect(engine, PROMPTS[:3], 8, SAMPLING, file=file)
    file.ship(PROMPTS[:2])
    try:
        assert json.loads(file.shipped.read_text().splitlines()[0])["prompt"] in PROMPTS[:2]
        elsewhere = BankFile(engine.config, SAMPLING, proposals(engine), folder=tmp_path / "other")
        shipped = kept(engine, PROMPTS[:2], elsewhere)
        assert shipped is not None and not elsewhere.path.exists()
        assert np.abs(shipped.log_ratios - sampled.log_ratios[:2]).max() < 1e-3
        assert kept(engine, PROMPTS[:3], elsewhere) is None, "the third prompt is not in it"
        stale = BankFile(engine.config, SAMPLING, proposals(engine), seed=1, folder=tmp_path / "other")
        assert stale.read() == {}
    finally:
        file.shipped.unlink()
    file.shipped.mkdir()
    try:
        with pytest.raises(InputError, match=r"cannot write the bank: Is a directory"):
            file.ship(PROMPTS[:2])
    finally:
        file.shipped.rmdir()


def test_rounds_that_some_prompts_lack_are_left_out(small: Callable[[int, int], Small], tmp_path: Path) -> None:
    engine, seen = small(2, 0).engine, []
    file = BankFile(engine.config, SAMPLING, proposals(engine), folder=tmp_path)
    with pytest.raises(InputError, match="bank: stopped"):
        collect(
            engine, PROMPTS[:2], 400, SAMPLING, file=file,
            progress=lambda done, wanted: seen.append(done), stopped=lambda: seen[-1] >= 12,
        )  # fmt: skip
    bank = kept(engine, PROMPTS[:2], file)
    assert bank is not None
    units = file.read()
    whole = min(sum(prompt == asked for asked, _ in units) for prompt in PROMPTS[:2])
    assert bank.rewards.shape[:2] == (2, 4 * whole)


def test_the_references_own_responses(small: Callable[[int, int], Small]) -> None:
    engine = small(2, 0).engine
    bank = collect(engine, PROMPTS[:2], 8, SAMPLING)
    alone = collect(engine, PROMPTS[:2], 2, SAMPLING, sources={REFERENCE: engine.mixture({REFERENCE: 1.0})})
    part = bank.reference_only
    assert part is not None
    # Seeds do not depend on what else is drawn.
    assert np.array_equal(part.rewards, alone.rewards)
    assert np.allclose(part.log_ratios, alone.log_ratios, atol=1e-5)
    assert not part.log_base.any()
    assert alone.reference_only is not None
