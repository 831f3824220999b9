"""Sessions end without notice: their runs do not stay for ever."""

from __future__ import annotations

import pytest

from app.services import run_table
from app.services.app_state import Desk
from app.services.generation_run import Run
from app.services.run_table import MAX_IDLE, MAX_RUNS, RunTable
from engine import Engine, InputError, Sampling


def make_run(age: float = 0.0, readers: int = 0, done: bool = True) -> Run:
    run = Run("mix", {})
    run.used -= age
    run.readers = readers
    if not done:
        run.responses["left"] = type("Writing", (), {"over": False, "count": 0})()
    return run


def test_a_thousand_sessions_that_never_come_back_leave_few_runs() -> None:
    runs = RunTable()
    for number in range(1000):
        runs.make_room(f"session {number}")
        runs[f"session {number}"] = make_run()
    assert len(runs) == MAX_RUNS
    assert "session 999" in runs and "session 0" not in runs


def test_the_longest_unused_one_makes_room() -> None:
    runs = RunTable()
    runs |= {f"{number}": make_run(age=number) for number in range(MAX_RUNS)}
    runs["read"] = make_run(age=1000, readers=1)
    runs["written"] = make_run(age=1000, done=False)
    runs["open"] = make_run(age=1000)
    runs.began("open")
    runs.make_room("new")
    assert {"read", "written", "open"} <= set(runs)
    assert [str(number) in runs for number in (MAX_RUNS - 1, MAX_RUNS - 5, 0)] == [False, True, True]
    before = set(runs)
    runs.make_room("open")  # it replaces its own
    assert set(runs) == before


def test_runs_that_nobody_reads_end_with_their_age() -> None:
    runs = RunTable()
    runs |= {
        "new": make_run(),
        "old": make_run(age=MAX_IDLE + 1),
        "read": make_run(age=MAX_IDLE + 1, readers=1),
        "written": make_run(age=MAX_IDLE + 1, done=False),
        "open": make_run(age=MAX_IDLE + 1),
    }
    for _ in range(2):
        runs.began("open")  # in two requests
    runs.ended("open")
    runs.sweep()
    assert set(runs) == {"new", "read", "written", "open"}
    runs.ended("open")
    runs.sweep()
    assert "open" in runs, "its page was closed just now"
    runs["open"].used -= MAX_IDLE + 1
    runs.sweep()
    assert "open" not in runs and not runs.open


def test_a_desk_keeps_few_runs(store, tiny_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_table, "MAX_RUNS", 3)
    desk = Desk(tiny_engine, store)
    mixtures = {"left": desk.engine.mixture()}
    for number in range(8):
        run = desk.start(f"session {number}", "mix", mixtures, Sampling(max_new_tokens=1), 1)
        run.responses["left"].request.completion()
        while not run.done:
            pass
    assert list(desk.runs) == ["session 5", "session 6", "session 7"]
    for run in desk.runs.values():
        run.readers = 1
    with pytest.raises(InputError, match="taken by responses under way"):
        desk.start("new", "mix", mixtures, Sampling(max_new_tokens=1), 1)
    assert list(desk.runs) == ["session 5", "session 6", "session 7"]


def sized(run: Run, tokens: int) -> Run:
    run.responses["left"] = type("Finished", (), {"over": True, "count": tokens})()
    return run


def test_long_responses_leave_fewer_runs() -> None:
    runs = RunTable()
    runs |= {f"{age}": sized(make_run(age=age), run_table.MAX_TOKENS // 4) for age in range(8)}
    runs["read"] = sized(make_run(age=9, readers=1), run_table.MAX_TOKENS)
    runs.began("6")
    runs.sweep()
    assert set(runs) == {"0", "1", "2", "3", "6", "read"}
    runs |= {f"open {age}": sized(make_run(age=age / 100), run_table.MAX_OPEN_TOKENS // 3) for age in range(5)}
    for age in range(5):
        runs.began(f"open {age}")
    runs.sweep()
    assert set(runs) == {"open 0", "open 1", "open 2", "read"}


@pytest.mark.parametrize(("kind", "limit"), [("browser", 8), ("network address", 40)])
def test_a_visitor_has_a_number_of_runs_under_way(kind: str, limit: int) -> None:
    def begin(runs: RunTable, number: int, visitor: str = "one") -> Run:
        browser, address = (visitor, "") if kind == "browser" else (f"browser {number}", visitor)
        session = f"{browser}:{number}"
        runs.make_room(session, address)
        run = runs[session] = make_run(done=False)
        run.browser, run.address = browser, address
        return run

    runs = RunTable()
    first, *_ = [begin(runs, number) for number in range(limit)]
    with pytest.raises(InputError, match=f"^{limit} runs of yours are under way, which is the most for one {kind}"):
        begin(runs, limit)
    begin(runs, limit - 1)  # it replaces its own
    begin(runs, limit, "another")
    first.responses["left"].over = True
    begin(runs, limit + 1)
