"""Latency of the annotators' requests in a large study: the next pair, and an answer.

    python tests/bench/annotate.py [--assignments 8000] [--clients 1 8] [--answers 200]

The real routes behind the site's checks, in one process, without an engine; the database is a file, and every answer is
synced to the disk. A request's time is that between its arrival at the application and the end of its answer. The
processor time is the process's, the clients' part included, for a next pair and its answer together: unlike the
latency, it hardly depends on what else the machine is doing.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections import defaultdict
from itertools import combinations
from pathlib import Path

import httpx
import numpy as np
from starlette.applications import Starlette

from app.schemas.study import AssignmentKind, AssignmentState, StudySettings, StudyState
from app.server.access import find_access
from app.server.annotate import AnnotateRoutes
from app.server.guard import guarded
from app.storage.database import Store
from app.storage.studies import StudyTables
from app.storage.study_items import NewItem
from app.storage.study_rows import new_id

SYSTEMS, WANTED, DONE = 4, 3, 0.6  # DONE: share of the ratings that are there before


def make_study(store: Store, assignments: int, pairing: str, people: int) -> tuple[str, list[str]]:
    """Store a study of so many assignments, most of them answered; return its id and the people's secrets."""
    tables = StudyTables(store)
    settings = StudySettings.model_validate(
        {
            "name": pairing,
            "wanted": WANTED,
            "pairing": pairing,
            "budget": assignments if pairing == "uncertain" else None,
        }
    )
    study = tables.add(settings, {f"system {i}": None for i in range(SYSTEMS)})
    pairs = list(combinations(range(SYSTEMS), 2))
    prompts = -(-assignments // (WANTED * len(pairs)))
    text = "A response of some length, as they are. " * 20
    tables.add_items(
        study,
        [NewItem(f"Prompt {i}?", *pair, first_text=text, second_text=text) for i in range(prompts) for pair in pairs],
    )
    tables.set_state(study, StudyState.OPEN)
    secrets = [tables.invite(study, f"person {i}")[1] for i in range(people)]
    items = [item.id for item in tables.items(study)]
    with store.writing() as db:
        others = [new_id() for _ in range(30)]
        people_row = {"study_id": study, "name": "", "joined_by": "anonymous", "attempts": 0, "created_at": "2030"}
        db.table("study_annotators").insert_all(
            {**people_row, "id": one, "key": one, "invitation_id": None, "read_at": "2030", "passed_at": None}
            for one in others
        )
        rows, chance = [], np.random.default_rng(0)
        for number in chance.permutation(len(items) * WANTED)[: int(assignments * DONE)]:
            item, turn = divmod(int(number), WANTED)
            rows.append(
                {
                    "id": new_id(),
                    "study_id": study,
                    "item_id": items[item],
                    "annotator_id": others[(item * 7 + turn) % len(others)],
                    "kind": AssignmentKind.PAIR.value,
                    "attempt": 0,
                    "swapped": int(number) % 2,
                    "probability": 1.0,
                    "state": AssignmentState.ANSWERED.value,
                    "leased_at": "2030",
                    "expires_at": "",
                    "answered_at": "2030",
                    "seconds": 9.0,
                    "comment": "",
                    "flagged": 0,
                }
            )
        db.table("study_assignments").insert_all(rows)
        choices = ["left", "right", "tie"]
        db.table("study_answers").insert_all(
            {"assignment_id": row["id"], "question": "overall", "choice": choices[int(chance.integers(3))]}
            for row in rows
        )
    return study, secrets


async def annotate(app: Starlette, study: str, secret: str, answers: int, times: dict[str, list[float]]) -> None:
    """Answer pairs as one person does, without a pause."""
    transport = httpx.ASGITransport(app, client=("127.0.0.1", 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:

        async def post(action: str, **body: object) -> dict[str, object]:
            began = time.perf_counter()
            answer = await http.post(f"/annotate/{study}/{action}", json=body)
            times[action].append(time.perf_counter() - began)
            answer.raise_for_status()
            found: dict[str, object] = answer.json()
            return found

        await post("join", secret=secret)
        for _ in range(answers):
            assignment = (await post("next"))["assignment"]
            assert isinstance(assignment, dict)
            await post("answer", assignment=assignment["id"], answers={"overall": "left"})


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--assignments", type=int, default=8000)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--answers", type=int, default=200, help="in all, of each row of the table")
    options = parser.parse_args()
    print(f"{'pairs':<10} {'clients':>7} {'request':<7} {'median':>8} {'p95':>8} {'p99':>8} {'processor':>11}")
    for pairing in ("all", "uncertain"):
        for clients in options.clients:
            with tempfile.TemporaryDirectory(prefix="mixdesk-bench-") as folder:
                store = Store(Path(folder) / "bench.db")
                study, secrets = make_study(store, options.assignments, pairing, clients)
                routes = AnnotateRoutes(store)
                routes.requests.most = 10**9
                app = guarded(Starlette(routes=routes.routes()), find_access("127.0.0.1", env={}))
                times: dict[str, list[float]] = defaultdict(list)
                each = max(1, options.answers // clients)
                before = time.process_time()
                await asyncio.gather(*(annotate(app, study, secret, each, times) for secret in secrets))
                processor = (time.process_time() - before) / (each * clients)
                store.close()
            for action in ("next", "answer"):
                figures = np.percentile(np.array(times[action]) * 1000, [50, 95, 99])
                shown = " ".join(f"{figure:>5.1f} ms" for figure in figures)
                print(f"{pairing:<10} {clients:>7} {action:<7} {shown} {processor * 1000:>8.1f} ms", flush=True)


if __name__ == "__main__":
    asyncio.run(main())
