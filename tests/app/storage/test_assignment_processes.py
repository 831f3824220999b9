"""Processes that annotate one study at once, and are killed meanwhile."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

from app.storage.database import Store
from tests import copies
from tests.app.storage.making_studies import StudyScene

ROOT = Path(__file__).parents[3]
PEOPLE, PAIRS, WANTED = 3, 60, 2
SCRIPT = """
import json, sys
from app.storage.assignments import Assignments
from app.storage.database import Store

path, study, annotator, choice = sys.argv[1:]
assignments = Assignments(Store(path))
while assignment := assignments.next(study, annotator):
    assignments.answer(study, annotator, assignment.id, {"overall": choice})
    print(json.dumps([assignment.id, choice]), flush=True)
"""


def test_killed_processes_lose_no_answer_and_give_no_pair_too_many(tmp_path) -> None:
    store = Store(tmp_path / "studies.db")
    scene = StudyScene(store, prompts=PAIRS, wanted=WANTED)
    people = [scene.join(f"p{i}") for i in range(PEOPLE)]
    confirmed: dict[str, str] = {}
    for life, choice in enumerate(("left", "right", "tie")):
        processes = [
            copies.start(
                [sys.executable, "-c", SCRIPT, str(store.path), scene.id, person, choice],
                ROOT,
                stdout=subprocess.PIPE,
            )
            for person in people
        ]
        lines = []
        try:
            for process in processes:
                assert process.stdout is not None
                lines += [process.stdout.readline() for _ in range(3 + life)]
        finally:
            for process in processes:
                process.send_signal(signal.SIGKILL)
        for process in processes:
            rest, _ = process.communicate()
            lines += rest.split("\n")[:-1]
        confirmed |= dict(json.loads(line) for line in lines if line.strip())
        assert max(scene.counts()) <= WANTED
    stored = {row["assignment_id"]: row["choice"] for row in scene.rows(table="study_answers")}
    assert confirmed.items() <= stored.items(), "a confirmed answer is lost, or another one"
    assert len(stored) - len(confirmed) <= 3 * PEOPLE, "answers that nobody gave"
    # The clock of this test is far ahead of the processes': what they had leased is free again.
    while sum(len(scene.work(person)) for person in people):
        pass
    assert scene.counts() == [WANTED] * PAIRS
    assert store.db.execute("pragma integrity_check").fetchall() == [("ok",)]
    assert store.db.execute("pragma foreign_key_check").fetchall() == []
    store.close()
