"""Radar, table, faders and charts have the objectives in one order, whatever the configuration's."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from app.charts import comparison as comparison_chart
from app.charts import pareto
from app.charts import radar as radar_chart
from app.html import rewards_table
from app.services.app_state import Desk
from app.storage.database import Store
from app.ui.desk_tab import DeskTab
from engine import Engine
from engine.evaluation.comparison import summarise
from tests.app.charts.test_pareto import made
from tests.app.conftest import make_completion
from tests.conftest import Tiny

# Not the policies' order (plain, stabilized, narrow), and one that has no policy.
CONFIGURED = ["brief", "narrow", "plain", "stabilized"]
SHOWN = ["plain", "stabilized", "narrow", "brief"]


def test_all_have_the_policies_order(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    brevity = {"kind": "function", "function": "engine.rewards:brevity", "mean": 0, "std": 1}
    config = tiny.write("order.yaml", rewards=[{"objective": name, **brevity} for name in CONFIGURED])
    with Engine.from_config(config) as engine:
        desk = Desk(engine, Store(tmp_path / "mixdesk.db"))
        objectives = desk.expected.objectives
        assert objectives == engine.reward_set.objectives == SHOWN
        # The faders are the policies, in the configuration's order.
        assert [policy.objective for policy in engine.config.policies] == SHOWN[:3]

        radar = DeskTab(desk).radar(None)["layout"]["polar"]["angularaxis"]["ticktext"]
        assert [next(name for name in SHOWN if name in label) for label in radar] == SHOWN

        rewards = {name: float(i) for i, name in enumerate(CONFIGURED)}  # as a completion may have them
        completion = make_completion(rewards=rewards)
        table = rewards_table(objectives, desk.colours, {"left": completion})
        assert re.findall(r"</span>(\w+)</th>", table)[-4:] == SHOWN

        standard = radar_chart.SideRewards(rewards, rewards)
        side = radar_chart.radar(objectives, [desk.colours[name] for name in objectives], {"Left": standard})["data"][1]
        assert side["r"][:4] == [rewards[name] for name in SHOWN]
        expected = radar_chart.expected(objectives, standard, dict.fromkeys(rewards, 0.1), True)
        assert expected["r"][:4] == [rewards[name] for name in SHOWN]

        # Compare: a plan's scale has its order.
        summary = summarise(np.random.default_rng(0).normal(size=(12, 2, 4)))
        looks = comparison_chart.looks({"a": completion.mixture, "b": completion.mixture}, {})
        accents = {name: desk.colours[name] for name in objectives}
        wins = comparison_chart.win_table(summary, looks, accents)
        order = [name for name in re.findall(r"(\w+)</th>", wins) if name in SHOWN]
        assert order == SHOWN

        # Explore.
        front = made(3, 4)
        figure = pareto.parallel(front, desk.policies, list(desk.accents.values()), objectives)
        assert list(figure.layout.xaxis.ticktext) == SHOWN
        pairs = pareto.scatter(front, desk.policies, list(desk.accents.values()), objectives, {})
        assert json.loads(pairs.to_json())["layout"]["meta"]["names"]["rewards"] == SHOWN
        desk.comparisons.close()
        desk.store.close()
