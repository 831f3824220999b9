"""Sampling a bank, keeping it, and finding it again."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from engine import InputError, Sampling
from engine.bank.collection import collect, proposals
from engine.bank.storage import BankFile
from engine.config import REFERENCE, load_config
from engine.inference.batch import Batch
from engine.solvers import SOLVERS
from engine.solvers.bank_request import BankRequest
from tests.conftest import Tiny
from tests.engine.conftest import PROMPTS, Small, make

SAMPLING = Sampling(max_new_tokens=6, temperature=0.8)


def file_of(small: Small, folder: Path, sampling: Sampling = SAMPLING) -> BankFile:
    return BankFile(small.engine.config, sampling, proposals(small.engine), folder=folder)


def test_log_probs_are_those_of_the_whole_response(small: Callable[[int, int], Small]) -> None:
    """By a forward pass over the finished response, at the bank's temperature."""
    engine = small(2, 0).engine
    for temperature in (1.0, 0.8):
        bank = collect(engine, PROMPTS[:2], 8, Sampling(max_new_tokens=6, temperature=temperature))
        assert bank.log_ratios.shape == (2, 8, 2)
        assert bank.rewards.shape == (2, 8, 2)
        exact = small(2, 0).exact
        if temperature == 1:
            # Every response of the bank is one of those that were written out.
            known = np.concatenate([exact.log_ratios[0], exact.log_ratios[1]])
            for ratios in bank.log_ratios.reshape(-1, 2):
                assert np.abs(known - ratios).sum(-1).min() < 1e-4


def test_at_another_temperature_everything_still_adds_up(small: Callable[[int, int], Small]) -> None:
    """At a corner the bank's mixture is that policy: F is 0 there, within the error."""
    engine = small(3, 0).engine
    bank = collect(engine, PROMPTS, 100, SAMPLING)
    for corner in np.eye(3):
        estimate = bank.estimate(corner)
        assert abs(estimate.objective) < 4 * estimate.error + 1e-5
        assert estimate.error < 0.1


def test_a_bank_that_was_stopped_goes_on(small: Callable[[int, int], Small], tmp_path: Path) -> None:
    some, seen = small(2, 0), []
    file = file_of(some, tmp_path)
    with pytest.raises(InputError, match="bank: stopped; the sampled responses are kept"):
        collect(
            some.engine, PROMPTS, 40, SAMPLING, file=file,
            progress=lambda done, wanted: seen.append(done), stopped=lambda: bool(seen) and seen[-1] >= 80,
        )  # fmt: skip
    kept = len(file.read())
    assert 20 <= kept < 80
    seen.clear()
    bank = collect(some.engine, PROMPTS, 40, SAMPLING, file=file, progress=lambda done, wanted: seen.append(done))
    assert seen[0] == kept * 4
    assert seen[-1] == 320
    whole = collect(some.engine, PROMPTS, 40, SAMPLING)
    assert np.allclose(bank.log_base, whole.log_base, atol=1e-5)
    assert np.array_equal(bank.rewards, whole.rewards)
    # All of it is there: nothing is sampled now.
    seen.clear()
    collect(some.engine, PROMPTS, 40, SAMPLING, file=file, progress=lambda done, wanted: seen.append(done))
    assert seen == [320]


def test_stop_does_not_wait_for_the_responses_under_way(
    small: Callable[[int, int], Small], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, held, ended, step = threading.Event(), threading.Event(), [], Batch.step
    hold = lambda batch, drawn: (begun.set(), held.wait(10), step(batch, drawn), ended.append(batch))[2]  # noqa: E731
    monkeypatch.setattr(Batch, "step", hold)
    try:
        with pytest.raises(InputError, match="bank: stopped"):
            collect(small(2, 0).engine, PROMPTS[:1], 1, SAMPLING, stopped=begun.is_set)
        assert not ended, "it waited for a token"
    finally:
        held.set()


def test_a_torn_line_is_sampled_again(small: Callable[[int, int], Small], tmp_path: Path) -> None:
    some = small(2, 0)
    file = file_of(some, tmp_path)
    collect(some.engine, PROMPTS[:3], 8, SAMPLING, file=file)
    whole = file.path.read_bytes()
    file.path.write_bytes(whole[:-30])  # killed while writing
    assert len(file.read()) == 5
    collect(some.engine, PROMPTS[:3], 8, SAMPLING, file=file)
    assert len(file.read()) == 6
    assert sum(1 for line in file.path.read_text().splitlines() if line.endswith("}")) == 6


def test_whatever_changes_what_is_sampled_changes_the_name(tmp_path: Path) -> None:
    config = load_config(make(tmp_path / "a", 2, 0))
    sources = {"p0": object.__new__(type("M", (), {"as_dict": lambda _: {"p0": 1}}))}

    def name(**changes) -> str:
        given = {"config": config, "sampling": SAMPLING, "proposals": sources, "seed": 0, **changes}
        return BankFile(**given, folder=tmp_path).path.name

    first = name()
    assert first == name()
    assert first.startswith("small-")
    changed = [name(seed=1), name(sampling=Sampling(max_new_tokens=6, temperature=0.9)), name(proposals={})]
    adapter = tmp_path / "a" / "p0" / "adapter_model.safetensors"
    data = adapter.read_bytes()
    adapter.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    changed.append(name())
    adapter.write_bytes(data)
    base = tmp_path / "a" / "base" / "config.json"
    base.write_text(json.dumps({**json.loads(base.read_text()), "rms_norm_eps": 1e-4}))
    changed.append(name())
    assert len({first, *changed}) == 6


@pytest.mark.parametrize(
    ("sampling", "said"),
    [
        (Sampling(temperature=0.0), "temperature: found 0"),
        (Sampling(top_k=5), "takes temperature and length alone"),
        (Sampling(min_p=0.1), "takes temperature and length alone"),
    ],
)
def test_sampling_that_is_not_the_policies_is_refused(
    small: Callable[[int, int], Small], sampling: Sampling, said: str
) -> None:
    with pytest.raises(InputError, match=said):
        collect(small(2, 0).engine, PROMPTS, 4, sampling)


@pytest.mark.parametrize("method", ["mpo", "bsmd"])
def test_solvers_give_weights_with_errors(small: Callable[[int, int], Small], method: str, tmp_path: Path) -> None:
    some = small(2, 1)
    settings = Sampling(max_new_tokens=6, temperature=1.0)
    solution = SOLVERS[method].find(BankRequest(some.engine, PROMPTS, settings, 0, 160))
    found, best = np.array(list(solution.weights.values())), some.exact.best()
    assert found.sum() == pytest.approx(1)
    assert 0.5 * np.abs(found - best).sum() < 0.15
    assert abs(solution.objective - some.exact.objective(found)) < 4 * solution.objective_error
    assert all(error > 0 for error in solution.weight_errors.values())
    assert solution.policy_tokens > 0
    assert len(solution.path) > 1
    assert json.loads(json.dumps(solution.as_dict()))["weights"] == solution.weights


def test_more_is_sampled_where_too_little_counts(
    small: Callable[[int, int], Small], monkeypatch: pytest.MonkeyPatch
) -> None:
    some, wanted = small(2, 0), set()
    monkeypatch.setattr("engine.solvers.mpo.LOW_ESS_FRACTION", 0.999)
    request = BankRequest(some.engine, PROMPTS[:2], SAMPLING, 0, 8, progress=lambda done, every: wanted.add(every))
    SOLVERS["mpo"].find(request)
    assert wanted == {16, 32, 64}
    wanted.clear()
    monkeypatch.undo()
    SOLVERS["mpo"].find(request)
    assert wanted == {16}


def test_a_prompt_that_does_not_fit_is_told_before_anything_is_sampled(small: Callable[[int, int], Small]) -> None:
    engine = small(2, 0).engine
    with pytest.raises(InputError, match=r"prompt: it is .* tokens long"):
        collect(engine, ["a", "a b " * 40], 4, SAMPLING)
    assert engine.waiting == engine._scheduler.batch.rows == 0


def test_solve_on_the_command_line(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    from engine.cli.main import app
    from engine.cli.runner import run

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("mix\nmove the faders\n")
    asked = ["solve", "--config", str(tiny.config), "--prompts", str(prompts), "--max-new-tokens", "5", "--json"]
    assert run(app, "python -m engine", asked) == 0
    found = json.loads(capsys.readouterr().out)
    assert sum(found["weights"].values()) == pytest.approx(1)
    assert Path(found["bank"]).is_file()
    assert Path(found["bank"]).is_relative_to(tmp_path)
    rows = [row for line in Path(found["bank"]).read_text().splitlines() for row in json.loads(line)["responses"]]
    assert not any(REFERENCE in row["log_probs"] for row in rows), "it is a lean one"
    assert run(app, "python -m engine", [*asked[:-1], "--method", "guess"]) == 2
    assert "no method is called 'guess'; there are mpo, bsmd, maxmin, target" in capsys.readouterr().err
    # The desk's bank is sampled to ship, and from then on it is there for nothing.
    try:
        assert run(app, "python -m engine", [*asked, "--ship"]) == 0
        desk = json.loads(capsys.readouterr().out)
        assert "expected" not in found, "a bank without the reference knows no scale"
        assert desk["expected"].keys() == desk["expected_errors"].keys() == {"plain", "narrow"}
        assert desk["better"] is None or min(desk["better"]["gains"].values()) > 0
        shipped = tiny.config.parent / "banks" / Path(desk["bank"]).name
        assert desk["bank"] != found["bank"] and REFERENCE in shipped.read_text()
        Path(desk["bank"]).unlink()
        assert run(app, "python -m engine", asked) == 0
        again = json.loads(capsys.readouterr().out)
        assert again["bank"] == desk["bank"] and not Path(desk["bank"]).exists()
        assert again["weights"] == pytest.approx(desk["weights"], abs=0.01)  # four digits are shipped
    finally:
        shutil.rmtree(tiny.config.parent / "banks", ignore_errors=True)


def test_reference_alone_is_a_bank_of_the_paper(small: Callable[[int, int], Small]) -> None:
    engine = small(2, 0).engine
    bank = collect(engine, PROMPTS[:2], 10, SAMPLING, sources={REFERENCE: engine.mixture({REFERENCE: 1.0})})
    assert bank.log_base == pytest.approx(0, abs=1e-9)


def test_the_bank_is_measured_on_the_command_line(capsys) -> None:
    from engine.cli.main import app
    from engine.cli.runner import run

    assert run(app, "python -m engine", ["bench", "--bank", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["prompts"], found["responses"], found["policies"]) == (100, 64, 4)
    assert 0 < found["p50_ms"] <= found["p95_ms"]
