"""The scale of rewards: estimated, kept, and never pretended."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine.bank.calibration import read_scale, scale_of_bank, write_scale
from engine.bank.estimate import Bank
from engine.bank.local_normaliser import LocalNormaliser, fit_normaliser
from engine.errors import InputError
from engine.reward_kind import RewardSettings
from engine.rewards.scale import RewardScale


def test_mean_and_std_go_together() -> None:
    with pytest.raises(ValueError, match="'std' is missing"):
        RewardSettings(objective="a", kind="implicit", mean=1.0)
    assert RewardSettings(objective="a", kind="implicit").std is None


def test_what_is_not_calibrated_has_no_z_score() -> None:
    scale = RewardScale({"a": 1.0}, {"a": 2.0}).merged(
        RewardScale.from_samples({"a": 9.0, "b": 3.0}, {"a": 9.0, "b": 0.0})
    )
    assert scale.standard({"a": 5.0, "b": 3.0, "c": 1.0}) == {"a": 2.0}
    assert scale.uncalibrated("abc") == ["c"]
    with pytest.raises(InputError, match="reward 'b': all of the reference's responses have the same reward"):
        scale.require("ab")


def test_a_scale_is_kept_and_a_torn_file_is_none(tmp_path: Path) -> None:
    path, scale = tmp_path / "cache" / "scale.json", RewardScale({"a": 1.0}, {"a": 2.0}, frozenset("b"))
    write_scale(path, scale)
    assert read_scale(path) == scale
    path.write_text(path.read_text()[:12])
    assert read_scale(path) == RewardScale()


def test_a_bank_is_weighted_to_the_reference() -> None:
    rng = np.random.default_rng(0)
    shift = 0.5  # drawn from N(0.5, 1), the reference is N(0, 1)
    y = rng.normal(shift, 1, size=(1, 40000))
    log_base = -(y**2) / 2 + (y - shift) ** 2 / 2
    bank = Bank(["p"], ["a"], ["x"], np.zeros((*y.shape, 1)), log_base, 3 * y[..., None] + 1, 0, ("reference",))
    scale = scale_of_bank(bank)
    assert scale.mean["a"] == pytest.approx(1, abs=0.1) and scale.std["a"] == pytest.approx(3, abs=0.1)


def test_the_local_normaliser_is_exact_for_gaussian_steps_and_restricts() -> None:
    # Of Gaussian policies of one variance log Z is a quadratic form: -½ (Σ λ_k m_k² - (Σ λ_k m_k)²).
    means = {"a": 0.3, "b": -0.7, "reference": 0.1}

    def log_z(weights: dict[str, float]) -> float:
        centre = sum(w * means[name] for name, w in weights.items())
        return -0.5 * (sum(w * means[name] ** 2 for name, w in weights.items()) - centre**2)

    halves = {f"{x}+{y}": -log_z({x: 0.5, y: 0.5}) for x, y in (("a", "b"), ("a", "reference"), ("b", "reference"))}
    form = fit_normaliser([[{"log_probs": dict.fromkeys(means, 0.0) | halves}]], ["a", "b"], "reference", "even")
    assert isinstance(form, LocalNormaliser)
    at = np.array([0.5, 0.9])  # a gain above 1: the reference has -0.4
    assert form(at).item() == pytest.approx(log_z({"a": 0.5, "b": 0.9, "reference": -0.4}))
    part = form.restricted(np.array([0.5, 0.0]), np.array([[0.0], [0.9]]))
    assert part(np.array([1.0])).item() == pytest.approx(form(at).item())
