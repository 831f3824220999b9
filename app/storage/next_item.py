"""Which item an annotator gets next, and on which side each response is."""

from __future__ import annotations

import hashlib
import math
import random
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from sqlite_utils import Database

from app.schemas.study import OVERALL, AssignmentKind, AssignmentState, ItemKind, StudySettings, verdict_of
from app.storage.annotators import Annotator
from app.storage.study_items import PRIME
from engine.votes.pairing import pair_probabilities

APART = 3  # pairs that an annotator answers between a pair and its repeat
CACHED = 50  # studies whose pairs are kept in memory
GROWTH = 0.02  # share of new ratings from which on the doubts about the ranking are computed again
UNEVEN = 2  # more pairs with one side swapped than not, for an annotator, until the next is not left to the hash
# A lease that has expired, and gives its place back as soon as somebody acts in the study.
LAPSED = "a.state = 'leased' and a.expires_at <= :now and a.answered_at is null"
# An assignment that counts: answered, leased now, or leased by undo, where an answer is there in any case.
TAKEN = f"(a.state in ('answered', 'leased') and not ({LAPSED}))"
OPEN = "taken < wanted"
# The pairs that the annotator may rate. The first conditions are those of the index `study_items_open`.
READY = (
    f"from study_items where study_id = :study and kind = 'pair' and {OPEN} and id not in "
    "(select a.item_id from study_assignments a where a.annotator_id = :annotator and a.kind = 'pair' "
    f"and a.state in ('leased', 'answered', 'skipped') and not ({LAPSED}))"
)


@dataclass(frozen=True)
class Draw:
    """The next assignment of an annotator.

    Attributes:
        item_id: The item.
        kind: The assignment's kind.
        swapped: Whether the second response is on the left.
        probability: With which its two systems were drawn; 1 where nothing is drawn.
        attempt: Of the training.
        assignment_id: The annotator's own expired assignment that is leased again, or None.
    """

    item_id: str
    kind: AssignmentKind
    swapped: bool
    probability: float = 1.0
    attempt: int = 0
    assignment_id: str | None = None


class StudyCache:
    """What is not read or computed anew for each request.

    Attributes:
        settings: {study: (settings as they are stored, the same as an object)}.
        wins: {study: (number of ratings, `Chooser.wins` of them)}.
    """

    def __init__(self) -> None:
        self.settings: dict[str, tuple[str, StudySettings]] = {}
        self.wins: dict[str, tuple[int, np.ndarray]] = {}

    def parse(self, study_id: str, text: str) -> StudySettings:
        """Return a study's settings, which nobody may change. text: as they are stored."""
        known = self.settings.get(study_id)
        if known is not None and known[0] == text:
            return known[1]
        if len(self.settings) >= CACHED:
            self.settings.clear()
            self.wins.clear()
        settings = StudySettings.model_validate_json(text)
        self.settings[study_id] = (text, settings)
        return settings


@dataclass(frozen=True)
class Chooser:
    """What the choice of an annotator's next item depends on, within a transaction."""

    db: Database
    study_id: str
    settings: StudySettings
    annotator: Annotator
    now: str
    cache: StudyCache

    @property
    def values(self) -> dict[str, Any]:
        """The values of the queries below."""
        return {"study": self.study_id, "annotator": self.annotator.id, "now": self.now}

    # ----------------------------------------------------------------------------------------------------- what is left

    @property
    def is_full(self) -> bool:
        """Whether the annotator, or the study, has as many ratings as are wanted."""
        if self.most is not None and self.rated >= self.most:
            return True
        return self.settings.budget is not None and self.taken_by_all >= self.settings.budget

    @property
    def is_ready(self) -> bool:
        """Whether there is a pair that the annotator may rate now."""
        return not self.is_full and self.db.execute(f"select 1 {READY} limit 1", self.values).fetchone() is not None

    def ready(self) -> int:
        """Return the number of pairs that the annotator may rate now."""
        if self.is_full:
            return 0
        (number,) = self.db.execute(f"select count(*) {READY}", self.values).fetchone()
        # The places of leases that have expired since somebody last acted are still marked as taken.
        lapsed = f"study_id = :study and {LAPSED}"
        if self.count(lapsed):
            items = f"(select a.item_id from study_assignments a where a.kind = 'pair' and a.{lapsed})"
            query = f"select count(*) {READY.replace(OPEN, f'not {OPEN}')} and id in {items}"
            number += self.db.execute(query, self.values).fetchone()[0]
        return int(number)

    @property
    def most(self) -> int | None:
        """Number of pairs that the annotator may rate, None if any number."""
        return self.settings.most if self.annotator.most is None else self.annotator.most

    @property
    def rated(self) -> int:
        """Number of pairs that the annotator has rated or is rating."""
        return self.count(f"a.annotator_id = :annotator and a.kind = 'pair' and {TAKEN}")

    @property
    def taken_by_all(self) -> int:
        """Number of ratings of the study, with those under way."""
        leased = f"a.study_id = :study and a.kind = 'pair' and a.state = 'leased' and {TAKEN}"
        return self.answered_by_all + self.count(leased)

    @property
    def answered_by_all(self) -> int:
        """Number of ratings of the study."""
        return self.count("a.study_id = :study and a.kind = 'pair' and a.state = 'answered'")

    def count(self, condition: str, **values: Any) -> int:
        """Return how many assignments fulfil a condition."""
        query = f"select count(*) from study_assignments a where {condition}"
        (number,) = self.db.execute(query, {**self.values, **values}).fetchone()
        return int(number)

    def has_room(self, item_id: str) -> bool:
        """Return whether a pair needs another rating, and the study, too."""
        (room,) = self.db.execute("select taken < wanted from study_items where id = ?", [item_id]).fetchone()
        budget = self.settings.budget
        return bool(room) and (budget is None or self.taken_by_all < budget)

    # ------------------------------------------------------------------------------------------------------- the choice

    def training(self) -> Draw | None:
        """Return the next training pair of the annotator's attempt; None once all are answered."""
        attempt = self.annotator.attempts
        row = self.db.execute(
            "select i.id, a.id from study_items i left join study_assignments a on a.item_id = i.id "
            "and a.annotator_id = :annotator and a.kind = 'training' and a.attempt = :attempt "
            "where i.study_id = :study and i.kind = 'training' and coalesce(a.state, '') != 'answered' "
            "order by i.place limit 1",
            {**self.values, "attempt": attempt},
        ).fetchone()
        if row is None:
            return None
        swapped = self.hashed("side", row[0], str(attempt)) % 2 == 1
        return Draw(row[0], AssignmentKind.TRAINING, swapped, attempt=attempt, assignment_id=row[1])

    def work(self, chance: random.Random) -> Draw | None:
        """Return the next pair, gold pair or repeat; None if no pair is left for the annotator."""
        if not self.is_ready:
            return None
        return self.expired() or self.gold() or self.repeat() or self.pair(chance)

    def expired(self) -> Draw | None:
        """Return what the annotator had when they paused, if it is still needed."""
        row = self.db.execute(
            "select a.id, a.item_id, a.kind, a.swapped, a.probability from study_assignments a "
            "join study_items i on i.id = a.item_id where a.annotator_id = :annotator and a.state = 'expired' "
            "and a.kind != 'training' and (a.kind != 'pair' or i.taken < i.wanted) "
            "order by a.leased_at desc, a.rowid desc limit 1",
            self.values,
        ).fetchone()
        if row is None:
            return None
        assignment, item, kind, swapped, probability = row
        return Draw(item, AssignmentKind(kind), bool(swapped), probability, assignment_id=assignment)

    def gold(self) -> Draw | None:
        """Return a gold pair if one is due."""
        if not self.is_due(AssignmentKind.GOLD, self.settings.gold_every):
            return None
        rows = self.db.execute(
            "select id from study_items where study_id = :study and kind = 'gold' and id not in "
            "(select item_id from study_assignments where annotator_id = :annotator and kind = 'gold')",
            self.values,
        ).fetchall()
        if not rows:
            return None
        item = min((row[0] for row in rows), key=lambda one: self.hashed("gold", one))
        return Draw(item, AssignmentKind.GOLD, self.side(item))

    def repeat(self) -> Draw | None:
        """Return a pair that the annotator rated a while ago, with its sides swapped, if a repeat is due."""
        if not self.is_due(AssignmentKind.REPEAT, self.settings.repeat_every):
            return None
        rows = self.db.execute(
            "select item_id, swapped from study_assignments where annotator_id = :annotator and kind = 'pair' "
            "and state = 'answered' order by answered_at desc, rowid desc limit -1 offset :apart",
            {**self.values, "apart": APART},
        ).fetchall()
        query = "select item_id from study_assignments where annotator_id = :annotator and kind = 'repeat'"
        repeated = {item for (item,) in self.db.execute(query, self.values)}
        sides = {item: bool(swapped) for item, swapped in rows if item not in repeated}
        if not sides:
            return None
        item = min(sides, key=lambda one: self.hashed("repeat", one))
        return Draw(item, AssignmentKind.REPEAT, not sides[item])

    def pair(self, chance: random.Random) -> Draw:
        """Return the pair that has the fewest ratings; of uncertain pairing, among those of two systems drawn first.

        Of several, a random order decides that is the annotator's own: a·x + b modulo a prime, of each pair's random
        number x, with a and b from a hash of the annotator.
        """
        probability, systems, more = 1.0, "", {}
        if self.settings.pairing == "uncertain":
            query = f"select distinct first_system, second_system {READY}"
            pairs = sorted(tuple(row) for row in self.db.execute(query, self.values))
            probabilities = pair_probabilities(self.wins(), pairs)
            drawn = chance.choices(range(len(pairs)), weights=probabilities.tolist())[0]
            probability = float(probabilities[drawn])
            systems = "and first_system = :first and second_system = :second"
            more = dict(zip(("first", "second"), pairs[drawn], strict=True))
        more["factor"], more["shift"] = 1 + self.hashed("factor") % (PRIME - 1), self.hashed("shift") % PRIME
        (item,) = self.db.execute(
            f"select id {READY} {systems} order by taken, (shuffle * :factor + :shift) % {PRIME}, id limit 1",
            {**self.values, **more},
        ).fetchone()
        return Draw(item, AssignmentKind.PAIR, self.side(item), probability)

    def is_due(self, kind: AssignmentKind, every: int) -> bool:
        """Return whether one of so many assignments is to be of this kind now, at a place that cannot be guessed."""
        if not every:
            return False
        rows = self.db.execute(
            "select kind, count(*) from study_assignments where annotator_id = :annotator and kind != 'training' "
            "group by kind",
            self.values,
        )
        counts = Counter(dict(rows.fetchall()))
        block, place = divmod(counts.total(), every)
        due = block + (place >= self.hashed("place", kind.value, str(block)) % every)
        return counts[kind.value] < due

    def side(self, item_id: str) -> bool:
        """Return whether the second response is on the left: by a hash, unless the annotator's sides became uneven."""
        (difference,) = self.db.execute(
            "select coalesce(sum(2 * swapped - 1), 0) from study_assignments where annotator_id = :annotator "
            "and kind in ('pair', 'gold')",
            self.values,
        ).fetchone()
        if abs(difference) >= UNEVEN:
            return bool(difference < 0)
        return self.hashed("side", item_id) % 2 == 1

    def hashed(self, *words: str) -> int:
        """Return a number that depends on the study's seed, the annotator and these words, and on nothing else."""
        text = "\0".join((str(self.settings.seed), self.study_id, self.annotator.id, *words))
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")

    def wins(self) -> np.ndarray:
        """Return [M, M], how often each system won against each, ties as half a win for either.

        It is that of a moment ago while few ratings have been added: what is stored is the probability of the draw.
        """
        known, wins = self.cache.wins.get(self.study_id, (-1, np.zeros((0, 0))))
        number = self.answered_by_all
        if known < 0 or abs(number - known) > GROWTH * known:
            wins = self.read_wins()
            self.cache.wins[self.study_id] = (number, wins)
        return wins

    def read_wins(self) -> np.ndarray:
        """Return `wins` as it is now."""
        rows = self.db.execute(
            "select i.first_system, i.second_system, a.swapped, w.choice, count(*) from study_assignments a "
            "join study_items i on i.id = a.item_id join study_answers w on w.assignment_id = a.id "
            "and w.question = :overall where a.study_id = :study and a.kind = 'pair' and a.state = :answered "
            "group by 1, 2, 3, 4",
            {**self.values, "overall": OVERALL, "answered": AssignmentState.ANSWERED.value},
        ).fetchall()
        (size,) = self.db.execute(
            "select 1 + max(first_system, second_system) from study_items where study_id = :study and kind = 'pair' "
            "order by 1 desc limit 1",
            self.values,
        ).fetchone()
        wins = np.zeros((size, size))
        for first, second, swapped, choice, number in rows:
            share = {"first": 1.0, "second": 0.0}.get(verdict_of(choice, bool(swapped)), 0.5)
            wins[first, second] += share * number
            wins[second, first] += (1 - share) * number
        return wins

    # ----------------------------------------------------------------------------------------------------- for progress

    def total(self, left: int) -> int | None:
        """Return about how many assignments of all kinds the annotator has in all; None if too few are pairs to say.

        Gold and repeats do not change it when they are given, as they would be recognised by that.

        Args:
            left: Number of pairs that are ready for the annotator.
        """
        rated, budget = self.rated, self.settings.budget
        if self.most is not None:
            left = min(left, max(0, self.most - rated))
        if budget is not None:
            left = min(left, max(0, budget - self.taken_by_all))
        extra = sum(1 / every for every in (self.gold_rate, self.settings.repeat_every) if every)
        return math.ceil((rated + left) / (1 - extra)) if extra < 0.9 else None

    @property
    def gold_rate(self) -> int:
        """`gold_every`, or 0 if the study has no gold pairs."""
        return self.settings.gold_every if self.settings.gold else 0


def has_training(db: Database, study_id: str) -> bool:
    """Return whether a study has training pairs."""
    return bool(db.table("study_items").count_where("study_id = ? and kind = ?", [study_id, ItemKind.TRAINING.value]))
