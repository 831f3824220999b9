"""Comparisons: the job behind the desk, what is kept of it, and what comes of it."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from app.services.comparison_jobs import Comparisons
from app.storage.database import Store
from engine import Engine, InputError, Sampling
from engine.evaluation.comparison import summarise
from engine.inference.parse_mixture import read_mixture
from engine.prompts import PromptSet
from tests import copies

ROOT = Path(__file__).parents[3]
SHORT = Sampling(max_new_tokens=6, temperature=1.0)
TABLES = ("comparisons", "comparison_mixtures", "comparison_prompts", "comparison_completions")


def prompts(count: int, name: str = "mine.jsonl") -> PromptSet:
    return PromptSet(name, [f"move the faders {i}" for i in range(count)], list(range(1, count + 1)))


def mixtures(engine: Engine):
    return {
        "Reference": engine.mixture({"reference": 1.0}),
        "plain": engine.mixture({"plain": 1.0}),
        "Uniform": engine.mixture(),
    }


@pytest.fixture
def comparisons(store: Store):
    made = Comparisons(store)
    yield made
    made.close()


def wait_for(condition, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.005)


def counts(store: Store) -> dict[str, int]:
    tables = ("prompts", "completions", "rewards", *TABLES)
    return {table: store.db.table(table).count for table in tables}


def test_every_mixture_answers_every_prompt(comparisons, tiny_engine):
    made = comparisons.start(tiny_engine, prompts(3), mixtures(tiny_engine), SHORT, seed=5)
    wait_for(lambda: made not in comparisons.jobs)
    (entry,) = comparisons.tables.listing()
    assert (entry.finished, entry.prompts, entry.answered) == (True, 3, 3)
    assert entry.mixtures == ["Reference", "plain", "Uniform"]
    answers = comparisons.tables.answers(made)
    assert answers.rewards.shape == (3, 3, 2) and not np.isnan(answers.rewards).any()
    assert all(std > 0 for _, std in answers.plan.scale.values()), "rewards without mean and std are calibrated first"
    rows = comparisons.tables.completions(made)
    assert [(row["place"], row["mixture_name"]) for row in rows[:4]] == [
        (0, "Reference"), (0, "plain"), (0, "Uniform"), (1, "Reference"),
    ]  # fmt: skip
    for row in (rows[1], rows[5]):
        again = tiny_engine.generate(row["prompt"], **row["mixture"], **row["sampling"], seed=row["seed"])
        assert again.tokens == row["tokens"], "it cannot be generated again"
        assert again.rewards == pytest.approx(row["rewards"], abs=1e-4)


def test_a_stopped_comparison_goes_on_where_it_was(comparisons, tiny_engine):
    long = Sampling(max_new_tokens=30, temperature=1.0)
    made = comparisons.start(tiny_engine, prompts(30), mixtures(tiny_engine), long)
    wait_for(lambda: comparisons.jobs[made].done >= 2)
    assert comparisons.jobs[made].seconds_left > 0
    comparisons.stop(made)
    wait_for(lambda: made not in comparisons.jobs)
    (entry,) = comparisons.tables.listing()
    assert 2 <= entry.answered < 30 and not entry.finished
    before = comparisons.tables.completions(made)
    assert not [row for row in before if row["finish_reason"] == "stopped"], "half a response was kept"
    assert tiny_engine.waiting == 0

    again = Comparisons(Store(comparisons.tables.store.path))  # another process's eyes
    again.resume(tiny_engine, made)
    wait_for(lambda: made not in again.jobs)
    after = again.tables.completions(made)
    assert len(after) == 30 * 3 and again.tables.listing()[0].finished
    assert [row for row in after if row["id"] <= before[-1]["id"]] == before, "what was there was made again"
    again.tables.store.close()


def test_a_comparison_that_was_killed_goes_on(tiny, tiny_engine, tmp_path):
    script = """
import sys, time
from app.services.comparison_jobs import Comparisons
from app.storage.database import Store
from engine import Engine, Sampling
from tests.app.services.test_comparison_jobs import mixtures, prompts
engine = Engine.from_config(sys.argv[2])
comparisons = Comparisons(Store(sys.argv[1]))
made = comparisons.start(engine, prompts(40), mixtures(engine), Sampling(max_new_tokens=12, temperature=1.0), seed=3)
while made in comparisons.jobs:
    if comparisons.jobs[made].done >= 3:
        print(comparisons.jobs[made].done, flush=True)
        time.sleep(60)
    time.sleep(0.005)
"""
    path = tmp_path / "killed.db"
    command = [sys.executable, "-c", script, str(path), str(tiny.config)]
    process = copies.start(command, ROOT, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        told = int(process.stdout.readline())
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    comparisons = Comparisons(Store(path))
    (entry,) = comparisons.tables.listing()
    assert told <= entry.answered < 40 and not entry.finished
    assert counts(comparisons.tables.store)["completions"] == 3 * entry.answered, "half a prompt was kept"
    comparisons.resume(tiny_engine, entry.id)
    wait_for(lambda: not comparisons.jobs)
    assert comparisons.tables.listing()[0].answered == 40
    comparisons.tables.store.close()


def test_others_are_answered_meanwhile(comparisons, tiny_engine):
    long = Sampling(max_new_tokens=100, temperature=1.0)
    made = comparisons.start(tiny_engine, prompts(300), mixtures(tiny_engine), long)
    wait_for(lambda: comparisons.jobs[made].done >= 1)
    mixture = tiny_engine.mixture()
    tiny_engine.submit("mix", mixture, SHORT, client="somebody at the desk").completion(timeout=30)
    assert comparisons.jobs[made].done < 300
    comparisons.stop(made)


def test_a_plan_that_cannot_be_stores_nothing(comparisons, tiny_engine):
    good = mixtures(tiny_engine)
    many = {f"m{i}": tiny_engine.mixture({"plain": 1, "narrow": i}) for i in range(1, 8)}
    long = PromptSet("mine.csv", ["fine", "far too long " * 300], [2, 9])
    cases = [
        (prompts(2), {"Reference": good["Reference"]}, {}, "two or more"),
        (prompts(2), many, {}, "up to 6"),
        (prompts(2), {**good, "again": tiny_engine.mixture({"plain": 2})}, {}, "plain and again are the same"),
        (prompts(2), good, {"most": 0}, "1 or more"),
        (prompts(2), good, {"seed": -1}, "seed"),
        (long, good, {}, "mine.csv, line 9: prompt: it is"),
    ]
    for wanted, mixed, settings, says in cases:
        with pytest.raises(InputError, match=says):
            comparisons.start(tiny_engine, wanted, mixed, SHORT, **settings)
    assert set(counts(comparisons.tables.store).values()) == {0}
    assert not comparisons.jobs


def test_deleting_takes_all_of_it_and_nothing_else(comparisons, tiny_engine, completion):
    store = comparisons.tables.store
    store.rate("r", completion(prompt="move the faders 0"), completion("b", prompt="move the faders 0"), "tie", "anna")
    before = counts(store)
    made = comparisons.start(tiny_engine, prompts(60), mixtures(tiny_engine), SHORT)
    with pytest.raises(InputError, match="stop it first"):
        comparisons.delete(made)
    comparisons.stop(made)
    wait_for(lambda: made not in comparisons.jobs)
    other = comparisons.start(tiny_engine, prompts(1), mixtures(tiny_engine), SHORT)
    wait_for(lambda: other not in comparisons.jobs)
    comparisons.delete(made)
    comparisons.delete(other)
    assert counts(store) == before
    with pytest.raises(InputError, match="was deleted"):
        comparisons.tables.plan(made)


def test_two_at_once_and_no_more(comparisons, tiny_engine):
    long = Sampling(max_new_tokens=60, temperature=1.0)
    made = [comparisons.start(tiny_engine, prompts(50), mixtures(tiny_engine), long) for _ in range(2)]
    with pytest.raises(InputError, match="2 comparisons are under way"):
        comparisons.start(tiny_engine, prompts(1), mixtures(tiny_engine), SHORT)
    assert len(comparisons.tables.listing()) == 2
    for one in made:
        comparisons.stop(one)
    wait_for(lambda: not comparisons.jobs)


def test_an_engine_that_fails_is_told_and_can_be_tried_again(comparisons, tiny_engine, monkeypatch):
    def fail(*_: object) -> None:
        raise RuntimeError("no memory")

    with monkeypatch.context() as patched:
        patched.setattr(tiny_engine.reward_set, "score", fail)
        made = comparisons.start(tiny_engine, prompts(2), mixtures(tiny_engine), SHORT)
        wait_for(lambda: made not in comparisons.jobs)
    assert "RuntimeError" in comparisons.failures[made]
    comparisons.resume(tiny_engine, made)
    wait_for(lambda: made not in comparisons.jobs)
    assert comparisons.tables.listing()[0].finished and not comparisons.failures


def test_another_configuration_does_not_go_on_with_it(comparisons, tiny_engine, monkeypatch):
    made = comparisons.start(tiny_engine, prompts(50), mixtures(tiny_engine), SHORT)
    comparisons.stop(made)
    wait_for(lambda: made not in comparisons.jobs)
    monkeypatch.setattr(tiny_engine.config, "name", "other")
    with pytest.raises(InputError, match="configuration 'tiny'"):
        comparisons.resume(tiny_engine, made)


def test_many_threads_resume_it_once(comparisons, tiny_engine):
    made = comparisons.start(tiny_engine, prompts(30), mixtures(tiny_engine), SHORT)
    comparisons.stop(made)
    wait_for(lambda: made not in comparisons.jobs)
    threads = [threading.Thread(target=comparisons.resume, args=[tiny_engine, made]) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wait_for(lambda: made not in comparisons.jobs)
    assert counts(comparisons.tables.store)["comparison_completions"] == 90


def test_win_rates_by_hand():
    first = [[0.0, 5.0]] * 4
    second = [[1.0, 4.0], [1.0, 5.0], [-1.0, 6.0], [0.0, 4.0]]  # wins 2.5 of 4, and 1.5 of 4
    gap = [[np.nan, np.nan], [9.0, 9.0]]
    rewards = np.array([[a, b] for a, b in zip(first, second, strict=True)] + [gap])
    found = summarise(rewards)
    assert found.prompts == 4, "a prompt that not all have answered counts"
    assert found.wins[0, :, 0].tolist() == [0.625, 0.375, 0.375]
    assert found.means.tolist() == [[0.0, 5.0], [0.25, 4.75]]
    assert found.errors[1].tolist() == pytest.approx([0.4787136, 0.4787136])
    # All 4^4 resamples of the first objective's wins (1, 1, 0, 0.5), each as likely.
    every = np.array(np.meshgrid(*[[1, 1, 0, 0.5]] * 4)).reshape(4, -1).mean(0)
    assert found.wins[0, 0, 1:].tolist() == pytest.approx(np.quantile(every, [0.025, 0.975]), abs=0.126)
    assert (found.wins[0, :, 1] <= found.wins[0, :, 0]).all() and (found.wins[0, :, 0] <= found.wins[0, :, 2]).all()
    assert summarise(np.full((3, 2, 2), np.nan)).prompts == 0
    assert summarise(np.zeros((3, 2, 0))).wins.shape == (1, 1, 3)


def test_mixtures_are_typed(tiny_engine):
    mixture = read_mixture(tiny_engine, "plain=3, narrow=1; gain=1.5, rule=soup")
    assert (dict(mixture.weights)["plain"], mixture.rule, mixture.gain) == (0.75, "soup", 1.5)
    for text, says in [
        ("plain", "found 'plain'"),
        ("<b>=1", "no policy"),
        ("plain=1,plain=2", "twice"),
        ("plain=nan", "finite"),
        ("plain=1,gain=99", "gain"),
        ("plain=1,rule=magic", "rule"),
        ("", "found ''"),
    ]:
        with pytest.raises(InputError, match=says):
            read_mixture(tiny_engine, text)
