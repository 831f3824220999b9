"""Annotators and kill -9: every pair gets exactly its ratings, and no confirmed answer is lost.

They skip, undo, break connections off in the middle of a request and send again; leases expire under their hands.
"""

from __future__ import annotations

import asyncio
import random
import sqlite3
import time
from dataclasses import dataclass, field

import httpx

from app.schemas.study import StudySettings, StudyState
from app.storage.database import Store
from app.storage.studies import StudyTables
from app.storage.study_items import NewItem
from tests.hostile.client import http_client
from tests.hostile.process import AppProcess
from tests.hostile.result import Result

KILLS, CLIENTS, PAIRS, WANTED = 20, 32, 200, 3
SKIPS = 5  # of one annotator
BREAK_OFF, SKIP, UNDO, FORGET = 0.08, 0.04, 0.04, 0.04  # how often
EXPIRE = 0.15  # share of the leases that end each second
PATIENCE = 60.0  # seconds without another rating, at least
STARTS = 4  # times the longest start of the app, which is slow when the machine is busy: the patience, at least


@dataclass
class Record:
    """What the clients have seen confirmed: {assignment: the choices that may be stored}, and who skipped what."""

    study: str
    choices: dict[str, set[str]] = field(default_factory=dict)
    skipped: set[str] = field(default_factory=set)
    refused: int = 0
    broken_off: int = 0
    undone: int = 0
    ending: bool = False  # nothing is undone, skipped or forgotten any more, so that the study can become complete
    over: bool = False

    def __len__(self) -> int:
        return len(self.choices)


class AnnotatingClient:
    """One annotator in one browser."""

    def __init__(self, app: AppProcess, number: int, secret: str, record: Record, result: Result) -> None:
        self.app, self.number, self.secret, self.record, self.result = app, number, secret, record, result
        self.chance = random.Random(number)
        self.skips, self.idle = 0, False

    async def post(self, http: httpx.AsyncClient, action: str, **body: object) -> httpx.Response:
        """Send a request, which may be broken off; a server that has no time is asked again."""
        while True:
            sending = asyncio.create_task(http.post(f"annotate/{self.record.study}/{action}", json=body))
            if self.chance.random() < BREAK_OFF:
                await asyncio.sleep(self.chance.uniform(0, 0.02))
                sending.cancel()
                # Unlike awaiting the request, this raises nothing of the request's: a CancelledError is the client's
                # own, and to ignore that would be to go on for ever.
                await asyncio.wait([sending])
                if not sending.cancelled():
                    sending.exception()  # which is read, so that it is not logged
                self.record.broken_off += 1
                continue
            began = time.monotonic()
            try:
                answer = await sending
            except httpx.HTTPError:
                await asyncio.sleep(self.chance.uniform(0.2, 1.0))
                continue
            if answer.status_code in (429, 500, 502, 503):
                self.result.check(answer.status_code != 500, f"{action}: {answer.text}")
                await asyncio.sleep(0.3)
                continue
            self.result.latencies.append(time.monotonic() - began)
            return answer

    async def run(self) -> None:
        """Annotate until there is nothing more to do, or until cancelled."""
        async with http_client(self.app.url, f"127.0.2.{self.number + 1}", timeout=30) as http:
            answer = await self.post(http, "join", secret=self.secret)
            self.result.check(answer.status_code == 200, f"join: {answer.text}")
            while not self.record.over:
                await self.step(http)

    async def step(self, http: httpx.AsyncClient) -> None:
        """Take the next pair, and do something with it."""
        undo = not self.record.ending and self.chance.random() < UNDO
        shown = await self.post(http, "undo" if undo else "next")
        if shown.status_code == 409:  # there is nothing to undo
            return
        self.result.check(shown.status_code == 200, f"next: {shown.text}")
        assignment = shown.json()["assignment"]
        self.idle = assignment is None
        if assignment is None:
            await asyncio.sleep(0.3)
            return
        self.record.undone += undo
        pair, doing = assignment["id"], 1.0 if self.record.ending else self.chance.random()
        if doing < FORGET:  # the browser was closed
            return
        if doing < FORGET + SKIP and self.skips < SKIPS and not assignment["answers"]:
            self.skips += 1
            answer = await self.post(http, "skip", assignment=pair)
            # Another attempt at it may have been stored before the lease ended.
            self.result.check(answer.status_code in (200, 409), f"skip: {answer.text}")
            if answer.status_code == 200:
                self.record.skipped.add(pair)
            return
        choice = self.chance.choice(["left", "right", "tie", "both_bad"])
        if pair in self.record.choices:  # undone: either may be stored until this is confirmed
            self.record.choices[pair].add(choice)
        answer = await self.post(http, "answer", assignment=pair, answers={"overall": choice}, seconds=1.5)
        if answer.status_code == 200 and answer.json()["stored"]:
            self.record.choices[pair] = {choice}
        else:
            self.result.check(answer.status_code == 409, f"answer: {answer.text}")
            self.record.refused += 1


def make_study(app: AppProcess, pairs: int) -> tuple[str, list[str]]:
    """Store an open study in the running app's database; return its id and a secret for each client."""
    store = Store(app.db)
    try:
        tables = StudyTables(store)
        study = tables.add(StudySettings(name="Hostile", wanted=WANTED), {"one": None, "two": None})
        tables.add_items(
            study, [NewItem(f"Prompt {i}?", 0, 1, first_text=f"{i} a", second_text=f"{i} b") for i in range(pairs)]
        )
        tables.set_state(study, StudyState.OPEN)
        return study, [tables.invite(study, f"client {i}")[1] for i in range(CLIENTS)]
    finally:
        store.close()


def expire_some(app: AppProcess, chance: random.Random) -> None:
    """Let some leases end now, as if 15 minutes had passed."""
    db = sqlite3.connect(app.db, timeout=10)
    try:
        leased = [row[0] for row in db.execute("select id from study_assignments where state = 'leased'")]
        gone = [(one,) for one in leased if chance.random() < EXPIRE]
        db.executemany("update study_assignments set expires_at = '2000' where id = ? and state = 'leased'", gone)
        db.commit()
    finally:
        db.close()


def check_database(app: AppProcess, record: Record, result: Result, when: str) -> list[int]:
    """Check that every confirmed answer is stored, and return how many ratings each pair has."""
    db = sqlite3.connect(f"file:{app.db}?mode=ro", uri=True)
    try:
        (whole,) = db.execute("pragma integrity_check").fetchone()
        result.check(whole == "ok", f"{when}: the database is damaged: {whole}")
        result.check(not db.execute("pragma foreign_key_check").fetchall(), f"{when}: rows without their other row")
        stored = dict(db.execute("select assignment_id, choice from study_answers"))
        lost = [pair for pair, choices in record.choices.items() if stored.get(pair) not in choices]
        result.check(not lost, f"{when}: {len(lost)} of {len(record)} confirmed answers are lost or changed")
        states = dict(db.execute("select id, state from study_assignments"))
        odd = [pair for pair in record.skipped if states.get(pair) != "skipped"]
        result.check(not odd, f"{when}: {len(odd)} skipped pairs were given out again")
        twice = db.execute(
            "select count(*) from (select 1 from study_assignments group by annotator_id, item_id having count(*) > 1)"
        ).fetchone()[0]
        result.check(not twice, f"{when}: {twice} times somebody got a pair twice")
        wrong = db.execute(
            "select count(*) from study_items i where taken != (select count(*) from study_assignments a "
            "where a.item_id = i.id and a.state in ('answered', 'leased'))"
        ).fetchone()[0]
        result.check(not wrong, f"{when}: of {wrong} pairs the taken places are counted wrongly")
        counts = db.execute(
            "select (select count(*) from study_assignments a where a.item_id = i.id and a.state = 'answered') "
            "from study_items i order by place"
        ).fetchall()
        result.check(max(counts)[0] <= WANTED, f"{when}: a pair has {max(counts)[0]} ratings")
        return [count for (count,) in counts]
    finally:
        db.close()


def ratings(app: AppProcess) -> int:
    """Return how many ratings are stored, those under undo included."""
    db = sqlite3.connect(f"file:{app.db}?mode=ro", uri=True, timeout=10)
    try:
        query = (
            "select count(*) from study_assignments where state in ('answered', 'leased') and answered_at is not null"
        )
        return int(db.execute(query).fetchone()[0])
    finally:
        db.close()


def patience(app: AppProcess) -> float:
    """Return for how many seconds the number of ratings may stay as it is."""
    return max(PATIENCE, STARTS * app.longest_start)


async def until(app: AppProcess, wanted: int, chance: random.Random) -> bool:
    """Wait until so many ratings are stored, and end leases meanwhile; return whether they were.

    Ratings are counted in the database: an answer that was stored when its lease was about to end, but of which the
    client saw no confirmation, is none that it could count.
    """
    most, moved = -1, time.monotonic()
    while time.monotonic() - moved < patience(app):
        if (found := await asyncio.to_thread(ratings, app)) >= wanted:
            return True
        if found > most:
            most, moved = found, time.monotonic()
        await asyncio.sleep(0.2)
        if chance.random() < 0.2:
            await asyncio.to_thread(expire_some, app, chance)
    return False


async def run(app: AppProcess, scale: float) -> Result:
    """Let the annotators work, and kill the app again and again."""
    kills, pairs = max(1, round(KILLS * scale)), max(10, round(PAIRS * scale))
    study, secrets = await asyncio.to_thread(make_study, app, pairs)
    result, record, chance = Result(before=app.memory()), Record(study), random.Random(1)
    clients = [AnnotatingClient(app, i, secret, record, result) for i, secret in enumerate(secrets)]
    tasks = [asyncio.create_task(client.run()) for client in clients]
    try:
        for life in range(kills):
            wanted = pairs * WANTED * (life + 1) // (kills + 1)
            if not await until(app, wanted, chance):
                result.check(False, f"life {life}: no other rating for {patience(app):.0f} s")
                break
            await asyncio.sleep(chance.uniform(0, app.longest_start / 20))
            app.kill()
            await asyncio.sleep(0.1)  # what the clients have read of confirmations that came before the end
            check_database(app, record, result, f"life {life}")
            await app.start()
        record.ending = True
        await until(app, pairs * WANTED, chance)
        # Requests under way end, and with them what is still under undo.
        deadline = time.monotonic() + patience(app)
        while (counts := check_database(app, record, result, "at the end")) != [WANTED] * pairs:
            if time.monotonic() > deadline:
                break
            await asyncio.to_thread(expire_some, app, chance)
            await asyncio.sleep(0.5)
        record.over = True
        result.check(
            counts == [WANTED] * pairs, f"{sum(count != WANTED for count in counts)} pairs have too few ratings"
        )
        for task in tasks:
            if task.done() and not task.cancelled() and (error := task.exception()):
                result.check(False, f"a client ended: {type(error).__name__}: {error}")
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    check_database(app, record, result, "after the end")
    result.after = app.memory()
    result.notes.append(
        f"{kills} kills; {len(record)} answers confirmed, {sum(counts)} count; {len(record.skipped)} skips, "
        f"{record.undone} undone, {record.broken_off} requests broken off, {record.refused} answers refused as too late"
    )
    return result
