"""Which item an annotator gets next, and on which side each response is."""

from __future__ import annotations

import hashlib
import math
import random
from collections import Counter
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from sqlite_utils import Database

from app.schemas.study import OVERALL, AssignmentKind, AssignmentState, ItemKind, StudySettings, verdict_of
from app.storage.annotators import Annotator
from engine.votes.pairing import pair_probabilities

APART = 3  # pairs that an annotator answers between a pair and its repeat
CACHED = 50  # studies whose pairs are kept in memory
GROWTH = 0.02  # share of new ratings from which on the doubts about the ranking are computed again
UNEVEN = 2  # more pairs with one side swapped than not, for an annotator, until the next is not left to the hash
# An assignment that counts: answered, leased now, or leased by undo, where an answer is there in any case.
TAKEN = "(a.state = 'answered' or a.state = 'leased' and (a.expires_at > :now or a.answered_at is not null))"


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


class ReadyItem(NamedTuple):
    """A pair that needs more ratings than it has or is leased for."""

    id: str
    systems: tuple[int, int]
    taken: int


class StudyCache:
    """What is read of studies once, since it does not change while they are open, or not by much.

    Attributes:
        items: {study: [(id, systems, wanted) of its pairs]}.
        wins: {study: (number of ratings, `Chooser.wins` of them)}.
    """

    def __init__(self) -> None:
        self.items: dict[str, list[tuple[str, tuple[int, int], int]]] = {}
        self.wins: dict[str, tuple[int, np.ndarray]] = {}

    def make_room(self) -> None:
        """Forget everything if it is of many studies."""
        if len(self.items) > CACHED:
            self.items.clear()
            self.wins.clear()


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

    def ready(self) -> list[ReadyItem]:
        """Return the pairs that the annotator may rate now; none if they, or the study, have as many as are wanted."""
        most = self.most
        if most is not None and self.rated >= most:
            return []
        if self.settings.budget is not None and self.taken_by_all >= self.settings.budget:
            return []
        answered = dict(
            self.db.execute(
                "select item_id, count(*) from study_assignments where study_id = :study and kind = 'pair' "
                "and state = 'answered' group by item_id",
                self.values,
            ).fetchall()
        )
        taken = Counter(answered)
        for (item,) in self.db.execute(
            f"select item_id from study_assignments a where study_id = :study and kind = 'pair' and state = 'leased' "
            f"and {TAKEN}",
            self.values,
        ):
            taken[item] += 1
        seen = self.db.execute(
            "select item_id from study_assignments where annotator_id = :annotator and kind = 'pair' "
            "and state != 'expired'",
            self.values,
        )
        had = {item for (item,) in seen}
        return [
            ReadyItem(item, systems, taken[item])
            for item, systems, wanted in self.pairs()
            if taken[item] < wanted and item not in had
        ]

    def pairs(self) -> list[tuple[str, tuple[int, int], int]]:
        """Return (id, systems, wanted) of the study's pairs; they do not change once it is open."""
        if (found := self.cache.items.get(self.study_id)) is None:
            rows = self.db.execute(
                "select id, first_system, second_system, wanted from study_items where study_id = :study "
                "and kind = 'pair' order by place",
                self.values,
            )
            found = [(item, (first, second), wanted) for item, first, second, wanted in rows]
            self.cache.make_room()
            self.cache.items[self.study_id] = found
        return found

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
        (wanted,) = self.db.execute("select wanted from study_items where id = ?", [item_id]).fetchone()
        taken = self.count(f"a.item_id = :item and a.kind = 'pair' and {TAKEN}", item=item_id)
        budget = self.settings.budget
        return taken < wanted and (budget is None or self.taken_by_all < budget)

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
        ready = self.ready()
        if not ready:
            return None
        return self.expired({item.id for item in ready}) or self.gold() or self.repeat() or self.pair(ready, chance)

    def expired(self, ready: set[str]) -> Draw | None:
        """Return what the annotator had when they paused, if it is still needed."""
        rows = self.db.execute(
            "select id, item_id, kind, swapped, probability from study_assignments where annotator_id = :annotator "
            "and state = 'expired' and kind != 'training' order by leased_at desc",
            self.values,
        )
        for assignment, item, kind, swapped, probability in rows:
            if kind != AssignmentKind.PAIR.value or item in ready:
                return Draw(item, AssignmentKind(kind), bool(swapped), probability, assignment_id=assignment)
        return None

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

    def pair(self, ready: list[ReadyItem], chance: random.Random) -> Draw:
        """Return the pair that has the fewest ratings; of uncertain pairing, among those of two systems drawn first."""
        probability = 1.0
        if self.settings.pairing == "uncertain":
            pairs = sorted({item.systems for item in ready})
            probabilities = pair_probabilities(self.wins(), pairs)
            drawn = chance.choices(range(len(pairs)), weights=probabilities.tolist())[0]
            probability = float(probabilities[drawn])
            ready = [item for item in ready if item.systems == pairs[drawn]]
        fewest = min(item.taken for item in ready)
        item = min((one.id for one in ready if one.taken == fewest), key=lambda one: self.hashed("order", one))
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
        size = 1 + max(max(systems) for _, systems, _ in self.pairs())
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
