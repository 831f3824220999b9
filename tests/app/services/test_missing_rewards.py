"""Rewards that fail, in comparisons, the database, exports and the page."""

from __future__ import annotations

import csv
import io
import json
import sqlite3

import numpy as np
import pandas
import pytest

from app.charts import comparison as comparison_chart
from app.charts.radar import SideRewards, radar
from app.html import rewards_table
from app.services.comparison_jobs import Comparisons
from app.storage.database import Store, open_to_read, read_completion, read_pairs
from app.storage.export import FORMATS as EXPORTS
from app.storage.export_comparison import export_comparison
from engine import Engine, InputError
from engine.evaluation.comparison import summarise
from engine.prompts import PromptSet
from tests.app.services.test_comparison_jobs import SHORT, wait_for
from tests.conftest import Tiny
from tests.engine.rewards.test_missing import BROKEN, REWARDS

TWENTY = PromptSet("mine.jsonl", [f"move the faders {i:02}" for i in range(20)], list(range(1, 21)))


@pytest.fixture
def broken():
    BROKEN.clear()
    yield BROKEN
    BROKEN.clear()


@pytest.fixture(scope="module")
def made(tiny: Tiny):
    scaled = [{**reward, "mean": 0.0, "std": 1.0} for reward in REWARDS]
    with Engine.from_config(tiny.write("picky-app.yaml", rewards=scaled)) as made:
        yield made


@pytest.fixture
def comparisons(store: Store):
    made = Comparisons(store)
    yield made
    made.close()


def mixtures(engine: Engine):
    return {"Reference": engine.mixture({"reference": 1.0}), "Uniform": engine.mixture()}


@pytest.fixture
def finished(comparisons, made, broken) -> int:
    """A comparison over 20 prompts, of which three break a reward."""
    broken.update({"03": ValueError("<b>odd</b>"), "11": float("nan"), "17": MemoryError()})
    comparison = comparisons.start(made, TWENTY, mixtures(made), SHORT, seed=4)
    wait_for(lambda: comparison not in comparisons.jobs)
    return comparison


def test_a_comparison_ends_without_them_says_so_and_is_mended(comparisons, made, broken, finished) -> None:
    assert not comparisons.failures
    (entry,) = comparisons.tables.listing()
    assert (entry.finished, entry.answered, entry.missing) == (True, 20, 6)
    answers = comparisons.tables.answers(finished)
    assert len(answers.answered) == 20 and len(comparisons.tables.completions(finished)) == 40
    whole = ~np.isnan(answers.rewards).any((1, 2))
    assert whole.sum() == 17 and not whole[[3, 11, 17]].any()
    assert np.isfinite(answers.rewards[..., :2]).all(), "the other rewards of those prompts are there"
    told = comparison_chart.interrupted(20, answers.plan, None, answers.missing)
    assert (
        "6 responses to prompts 4, 12, 18 lack a reward: picky 6 (" in told
        and "Press Resume to compute the missing rewards again" in told
    )
    assert "<b>odd" not in told
    before = comparisons.tables.completions(finished)
    reasons = {row["place"]: row["missing_rewards"]["picky"] for row in before if row["missing_rewards"]}
    assert reasons == {3: "ValueError: <b>odd</b>", 11: "it is nan, not a finite number", 17: "out of memory"}

    comparisons.resume(made, finished)  # nothing is mended yet
    wait_for(lambda: finished not in comparisons.jobs)
    assert comparisons.tables.listing()[0].missing == 6

    broken.clear()
    broken["11"] = ValueError("still")
    comparisons.resume(made, finished)
    wait_for(lambda: finished not in comparisons.jobs)
    assert comparisons.tables.listing()[0].missing == 2
    still = {"picky": "ValueError: still"}
    assert comparisons.tables.answers(finished).missing == {(11, 0): still, (11, 1): still}
    broken.clear()
    comparisons.resume(made, finished)
    wait_for(lambda: finished not in comparisons.jobs)
    after = comparisons.tables.completions(finished)
    assert not np.isnan(comparisons.tables.answers(finished).rewards).any()
    assert comparisons.tables.listing()[0].missing == 0
    for one, other in zip(before, after, strict=True):
        for key in ("id", "text", "tokens", "seed", "created_at"):
            assert one[key] == other[key], "a response was generated again"
        assert other["rewards"] == {**other["rewards"], **one["rewards"]} and not other["missing_rewards"]
        assert other["rewards"]["picky"] == len(other["text"])
    assert comparison_chart.interrupted(20, answers.plan, None, {}) == ""


def test_the_page_shows_what_there_is(comparisons, finished) -> None:
    answers = comparisons.tables.answers(finished)
    objectives = dict.fromkeys(answers.plan.scale, "#123456")
    styles = comparison_chart.looks(answers.plan.mixtures, {})
    summary = summarise(comparison_chart.standard_rewards(answers))
    table = comparison_chart.win_table(summary, styles, objectives)
    assert table.count("17 of 20 prompts") == 2, "of the reward and of the lowest of all"
    assert "Share of 20 prompts won" in table and "Prompts of which a mixture lacks a reward are left out" in table
    value = json.loads(json.dumps(comparison_chart.table_value(finished, answers, styles, objectives), allow_nan=False))
    assert value["rows"][3]["rewards"][0][2] is None and value["rows"][3]["rewards"][0][1] is not None
    shown = comparison_chart.prompt_value(
        answers.plan, 3, comparisons.tables.completions(finished, 3), styles, objectives
    )
    assert shown["responses"][0]["rewards"][2] is None
    assert shown["responses"][0]["missing"] == {"picky": "ValueError: <b>odd</b>"}
    assert comparison_chart.comparison_radar(summary, styles, objectives) is not None
    # A reward that nothing has takes nothing from the others.
    answers.rewards[..., 2] = np.nan
    summary = summarise(comparison_chart.standard_rewards(answers))
    assert "0 of 20 prompts" in comparison_chart.win_table(summary, styles, objectives)
    figure = comparison_chart.comparison_radar(summary, styles, objectives)
    assert figure is not None and "picky" not in figure.to_json()


def test_exports_have_the_column_and_the_reason(comparisons, broken, made) -> None:
    broken["00"] = ValueError("odd")  # the first row lacks it: the others' column must not go with it
    comparison = comparisons.start(made, TWENTY, mixtures(made), SHORT, most=3)
    wait_for(lambda: comparison not in comparisons.jobs)
    frame = pandas.read_parquet(io.BytesIO(export_comparison(comparisons.tables, comparison, "parquet")))
    assert frame["reward_picky"].isna().tolist() == [True, True, False, False, False, False]
    assert frame["standard_picky"].dtype == np.float64
    assert json.loads(frame["missing_rewards"][0]) == {"picky": "ValueError: odd"} and frame["missing_rewards"][2] == ""
    rows = list(
        csv.DictReader(io.StringIO(export_comparison(comparisons.tables, comparison, "csv").decode(), newline=""))
    )
    assert [row["reward_picky"] == "" for row in rows] == [True, True, False, False, False, False]
    full = [
        json.loads(line) for line in export_comparison(comparisons.tables, comparison, "jsonl").decode().splitlines()
    ]
    assert full[0]["missing_rewards"] == {"picky": "ValueError: odd"} and "picky" not in full[0]["rewards"]


def test_deleting_takes_the_reasons_too(comparisons, finished) -> None:
    assert comparisons.tables.store.db.table("missing_rewards").count == 6
    comparisons.delete(finished)
    for table in ("missing_rewards", "rewards", "completions"):
        assert comparisons.tables.store.db.table(table).count == 0


def test_ratings_keep_the_reason(store: Store, completion, tmp_path) -> None:
    left = completion(missing_rewards={"harmless": "out of memory"})
    store.rate("r", left, completion("b"), "left", "anna")
    pair = store.pair("r")
    assert pair["left"]["missing_rewards"] == {"harmless": "out of memory"} and pair["right"]["missing_rewards"] == {}
    file = io.StringIO()
    EXPORTS["csv"](store.pairs(), file)
    (row,) = csv.DictReader(io.StringIO(file.getvalue(), newline=""))
    assert json.loads(row["left_missing_rewards"]) == {"harmless": "out of memory"}


def test_a_database_of_an_older_version_opens(tmp_path, completion) -> None:
    path = tmp_path / "old.db"
    store = Store(path)
    store.rate("r", completion(), completion("b"), "tie", "anna")
    store.close()
    with sqlite3.connect(path) as db:
        db.execute("drop table missing_rewards")
        assert db.execute("delete from _sqlite_migrations where name = 'm008_missing_rewards'").rowcount == 1
    db.close()
    reading = open_to_read(path)  # as `export` does, without changing the file
    (pair,) = read_pairs(reading)
    assert pair["left"]["missing_rewards"] == {} and pair["left"]["rewards"] == {"helpful": 1.25, "concise": -3.0}
    reading.close()
    store = Store(path)
    store.rate("s", completion(missing_rewards={"a": "b"}), completion("b"), "tie", "anna")
    assert read_completion(store.db, 3)["missing_rewards"] == {"a": "b"}
    assert store.pair("r")["left"]["missing_rewards"] == {}
    store.close()


def test_the_desk_says_why_a_side_lacks_a_reward(completion) -> None:
    made = completion(missing_rewards={"harmless": "ValueError: <i>odd</i>"})
    table = rewards_table(["helpful", "harmless"], {"helpful": "#111", "harmless": "#222"}, {"left": made}, ["left"])
    assert "Left has no reward for harmless: ValueError: &lt;i&gt;odd&lt;/i&gt;" in table and "<td>–</td>" in table
    sides = {"Left": SideRewards(made.rewards, {"helpful": 0.5})}
    assert radar(["helpful", "harmless", "concise"], ["#111", "#222", "#333"], sides) is not None


def test_a_reward_that_nothing_calibrates_ends_no_comparison(comparisons, tiny, broken) -> None:
    broken["move"] = ValueError("never")
    rewards = [{**reward, "mean": 0.0, "std": 1.0} for reward in REWARDS[:2]] + REWARDS[2:]
    with Engine.from_config(tiny.write("uncalibrated.yaml", name="uncalibrated", rewards=rewards)) as engine:
        comparison = comparisons.start(engine, TWENTY, mixtures(engine), SHORT, most=2)
        wait_for(lambda: comparison not in comparisons.jobs)
    assert not comparisons.failures and comparisons.tables.listing()[0].finished
    answers = comparisons.tables.answers(comparison)
    objectives = dict.fromkeys(answers.plan.scale, "#123456")
    styles = comparison_chart.looks(answers.plan.mixtures, {})
    json.dumps(comparison_chart.table_value(comparison, answers, styles, objectives), allow_nan=False)
    rows = comparisons.tables.completions(comparison, 0)
    json.dumps(comparison_chart.prompt_value(answers.plan, 0, rows, styles, objectives), allow_nan=False)
    assert "never" in comparison_chart.interrupted(2, answers.plan, None, answers.missing)
    with pytest.raises(InputError, match="was deleted"):
        comparisons.tables.plan(comparison + 1)
