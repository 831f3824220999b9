"""How far an annotator is in a study."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from app.schemas.study import StudyState
from app.storage.annotators import Annotator
from app.storage.next_item import TAKEN, Chooser, has_training

ATTEMPTS = 2  # at the training


class Phase(str, Enum):
    """What the annotator's page shows."""

    JOIN = "join"
    GUIDELINES = "guidelines"
    TRAINING = "training"
    WORK = "work"
    DONE = "done"  # for now: an expired lease of another annotator may give a pair back
    FAILED = "failed"
    PAUSED = "paused"
    CLOSED = "closed"


@dataclass(frozen=True)
class AnnotatorProgress:
    """How far an annotator is.

    Attributes:
        phase: What their page shows.
        answered: Number of answered pairs, gold pairs and repeats together, which cannot be told apart.
        total: About how many of them there are for this annotator; None if that is not known.
        training_done: Number of answered training pairs of this attempt.
        training_total: Number of training pairs.
        attempt: 1 or 2.
    """

    phase: Phase
    answered: int = 0
    total: int | None = None
    training_done: int = 0
    training_total: int = 0
    attempt: int = 1


def phase_before_work(state: StudyState, annotator: Annotator | None, trained: bool) -> Phase | None:
    """Return the phase of a study's annotator as far as no pair has to be looked for, else None.

    Args:
        state: The study's state.
        annotator: The annotator; None if they have not joined.
        trained: Whether there is no training, or they passed it.
    """
    if state is StudyState.CLOSED:
        return Phase.CLOSED
    if annotator is None:
        return Phase.JOIN
    if state is not StudyState.OPEN:
        return Phase.PAUSED
    if not annotator.read:
        return Phase.GUIDELINES
    if trained:
        return None
    return Phase.FAILED if annotator.attempts >= ATTEMPTS else Phase.TRAINING


def read_progress(chooser: Chooser, state: StudyState) -> AnnotatorProgress:
    """Return how far an annotator is, within a transaction."""
    annotator = chooser.annotator
    trained = annotator.passed or not has_training(chooser.db, chooser.study_id)
    phase = phase_before_work(state, annotator, trained)
    # Training is counted apart. An undo that has expired is answered, and no lease under way.
    answered, under_way = chooser.db.execute(
        "select count(case when a.state = 'answered' or a.expires_at <= :now then 1 end), "
        "count(case when a.state = 'leased' and a.expires_at > :now then 1 end) from study_assignments a "
        f"where a.annotator_id = :annotator and a.kind in ('pair', 'gold', 'repeat') and {TAKEN}",
        chooser.values,
    ).fetchone()
    total = None
    ready = chooser.ready() if trained else 0
    if phase is None:
        phase = Phase.WORK if under_way or ready else Phase.DONE
    if phase is Phase.DONE:
        total = answered
    elif phase is not Phase.CLOSED and trained and (wanted := chooser.total(ready)) is not None:
        total = max(answered, wanted)
    attempt = min(annotator.attempts, ATTEMPTS - 1)
    training = chooser.count(
        "a.annotator_id = :annotator and a.kind = 'training' and a.state = 'answered' and a.attempt = :attempt",
        attempt=attempt,
    )
    (pairs,) = chooser.db.execute(
        "select count(*) from study_items where study_id = ? and kind = 'training'", [chooser.study_id]
    ).fetchone()
    return AnnotatorProgress(phase, answered, total, training, pairs, attempt + 1)
