"""The owner's side of studies: made, generated, read, opened, paused, closed, duplicated, deleted; invitations."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from app.schemas.study import LONGEST_TEXT, OVERALL, Example, ItemKind, StudySettings, StudyState, Verdict
from app.services.comparison_jobs import ComparisonJob, Comparisons
from app.services.study_form import form_of, read_study_form
from app.services.study_pairs import StudyPairs, both_orders, study_pairs
from app.services.visitor import ANYBODY, Visitor
from app.storage.comparisons import StoredResponse
from app.storage.database import Store
from app.storage.studies import StudyTables
from engine import Engine, InputError, Mixture, Sampling
from engine.names import LONGEST, LONGEST_BYTES, check_label
from engine.prompts import PromptSet

MAX_STUDIES = 500
MAX_INVITATIONS = 1_000  # of a study
COPY = " (copy)"
# The most examples that `StudySettings` takes of a kind.
MAX_EXAMPLES = {ItemKind.TRAINING: 50, ItemKind.GOLD: 500}


@dataclass(frozen=True)
class Generation:
    """How far the responses of a study are.

    Attributes:
        answered: Prompts with responses of all systems.
        prompts: All prompts.
        job: The job that is under way, or None.
        failure: Why the last one ended, or None.
    """

    answered: int
    prompts: int
    job: ComparisonJob | None
    failure: str | None

    @property
    def finished(self) -> bool:
        """Whether all responses are there."""
        return self.answered == self.prompts


class Studies:
    """The studies of a store, for their owner. Thread-safe.

    Its methods do not ask who calls them: every handler of the page does (app/ui/owner_only.py).
    """

    def __init__(self, store: Store, comparisons: Comparisons) -> None:
        self.tables, self.comparisons = StudyTables(store), comparisons
        self._lock = threading.Lock()

    # ------------------------------------------------------------------------------------------------------- drafts

    def create(
        self,
        engine: Engine,
        settings: StudySettings,
        prompts: PromptSet,
        mixtures: Mapping[str, Mixture],
        sampling: Sampling,
        most: int | None = None,
        visitor: Visitor = ANYBODY,
    ) -> str:
        """Make a study, start to generate its responses to the first `most` prompts, or to all, and return its id.

        Raises:
            InputError: if an argument is invalid, or too many comparisons run or are stored; nothing is stored then.
        """
        for name in mixtures:
            check_system(name)
        self._check_room()
        comparison = self.comparisons.start(engine, prompts, mixtures, sampling, settings.seed, most, visitor)
        return self.tables.add(settings, mixtures, engine.config.name, prompts.name, comparison, owns_comparison=True)

    def create_from(self, settings: StudySettings, comparison: int) -> str:
        """Make a study of the responses of a finished comparison and return its id.

        Raises:
            InputError: if the comparison is not finished, or was deleted.
        """
        plan = self.comparisons.tables.plan(comparison)
        answered, prompts = self.comparisons.tables.progress(comparison)
        if answered < prompts:
            raise InputError(f"Comparison {comparison}: {answered} of {prompts} prompts are answered; resume it first.")
        for name in plan.mixtures:
            check_system(name)
        self._check_room()
        return self.tables.add(settings, plan.mixtures, plan.model, plan.source, comparison, owns_comparison=False)

    def change(self, study: str, settings: StudySettings) -> None:
        """Replace the settings of a draft; its responses stay.

        Raises:
            InputError: if it has been opened.
        """
        self.tables.set_settings(study, settings)

    def duplicate(self, study: str) -> str:
        """Make a draft with the same settings and the same responses, and return its id.

        Raises:
            InputError: if its votes were imported, so that there are no responses.
        """
        entry, settings = self.tables.entry(study), self.tables.settings(study)
        if entry.comparison_id is None:
            raise InputError(f"“{entry.name}” has imported votes, and no responses of this desk to ask about again.")
        self._check_room()
        settings = settings.model_copy(update={"name": copy_name(entry.name)})
        systems = self.tables.systems(study)
        return self.tables.add(settings, systems, entry.model, entry.source, entry.comparison_id, False)

    # --------------------------------------------------------------------------------------------------- generation

    def generation(self, study: str) -> Generation | None:
        """Return how far a study's responses are; None if it has no comparison."""
        comparison = self.tables.entry(study).comparison_id
        if comparison is None:
            return None
        job = self.comparisons.jobs.get(comparison)
        answered, prompts = self.comparisons.tables.progress(comparison)
        return Generation(answered, prompts, job, self.comparisons.failures.get(comparison))

    def resume(self, engine: Engine, study: str, visitor: Visitor = ANYBODY) -> None:
        """Resume the generation of a study, after it was stopped or the app was restarted.

        Raises:
            InputError: as `Comparisons.resume`.
        """
        self.comparisons.resume(engine, self._comparison(study), visitor)

    def stop(self, study: str, visitor: Visitor = ANYBODY) -> None:
        """Stop the generation of a study; finished responses are kept."""
        self.comparisons.stop(self._comparison(study), visitor)

    def responses(self, study: str) -> list[StoredResponse]:
        """Return the responses of a study so far, by prompt and system."""
        return self.comparisons.tables.responses(self._comparison(study))

    def pairs(self, study: str) -> StudyPairs:
        """Return the pairs that annotators would be given if the study was opened now."""
        return study_pairs(self.responses(study), len(self.tables.entry(study).systems), self.tables.settings(study))

    def add_example(
        self,
        study: str,
        kind: ItemKind,
        place: int,
        systems: tuple[int, int],
        expected: Sequence[Verdict],
        feedback: str = "",
    ) -> None:
        """Use a pair of a draft's responses for training or as gold.

        Args:
            study: The study.
            kind: `ItemKind.TRAINING` or `ItemKind.GOLD`.
            place: Index of the prompt.
            systems: Indices of the first and the second system.
            expected: Accepted verdicts on the overall question.
            feedback: Shown after the answer, in training.

        Raises:
            InputError: if there are no such responses, they are the same or too long, or the study is no draft.
        """
        row = {response.mixture: response for response in self.responses(study) if response.place == place}
        first, second = (row.get(system) for system in systems)
        if first is None or second is None:
            raise InputError("There are no two responses to this prompt yet: wait for them, or choose another prompt.")
        if first.text.strip() == second.text.strip():
            raise InputError("Both responses are the same: choose two that differ.")
        if max(len(text) for text in (first.prompt, first.text, second.text, feedback)) > LONGEST_TEXT:
            raise InputError(f"This pair is longer than {LONGEST_TEXT:,} characters: choose a shorter one.")
        example = Example(
            prompt=first.prompt,
            first=first.text,
            second=second.text,
            expected={OVERALL: list(expected)},
            feedback=feedback.strip(),
        )
        with self._lock:
            settings = self.tables.settings(study)
            there = self._examples(settings, kind)
            if any(both_orders(example)[0] in both_orders(one) for one in there):
                raise InputError(f"This pair is one of the {kind.value} pairs already.")
            if len(there) >= MAX_EXAMPLES[kind]:
                raise InputError(f"There are {len(there)} {kind.value} pairs, and no room for more: remove one first.")
            self._set_examples(study, settings, kind, [*there, example])

    def remove_example(self, study: str, kind: ItemKind, number: int) -> None:
        """Remove a training or gold pair of a draft, by its index."""
        with self._lock:
            settings = self.tables.settings(study)
            there = self._examples(settings, kind)
            if not 0 <= number < len(there):
                raise InputError("This pair was removed already.")
            self._set_examples(study, settings, kind, there[:number] + there[number + 1 :])

    # -------------------------------------------------------------------------------------------------- its states

    def open(self, study: str) -> StudyPairs | None:
        """Open a draft, or a paused study. A draft's pairs are made now; return them, or None of a paused study.

        Raises:
            InputError: if responses are missing, there are no pairs, or the study is closed.
        """
        with self._lock:
            entry = self.tables.entry(study)
            if entry.state is not StudyState.DRAFT:
                self.tables.set_state(study, StudyState.OPEN)
                return None
            generation = self.generation(study)
            if generation and not generation.finished:
                raise InputError(
                    f"{generation.answered} of {generation.prompts} prompts are answered: "
                    f"{'wait for the rest' if generation.job else 'press Resume first'}, then open the study."
                )
            pairs = self.pairs(study)
            if not pairs.items:
                raise InputError("There are no pairs: both responses are the same everywhere. Choose other mixtures.")
            self.tables.clear_items(study)  # of an opening that was interrupted
            self.tables.add_items(study, pairs.items)
            self.tables.set_state(study, StudyState.OPEN)
            return pairs

    def pause(self, study: str) -> None:
        """Pause an open study: nobody gets another pair."""
        self.tables.set_state(study, StudyState.PAUSED)

    def close(self, study: str) -> None:
        """Close a study for good."""
        self.tables.set_state(study, StudyState.CLOSED)

    def delete(self, study: str, unwanted: bool = False) -> None:
        """Delete a study with its answers, and its responses unless another study or a comparison has them.

        Args:
            study: The study.
            unwanted: Whether its owner has said that the answers are exported, or not wanted.

        Raises:
            InputError: if it has answers that nobody has said this of, or its generation is under way.
        """
        entry = self.tables.entry(study)
        if entry.comparison_id in self.comparisons.jobs:
            raise InputError("The responses of this study are being generated: stop that first, then delete it.")
        if entry.answered and not unwanted:
            what, it = ("1 rating", "it") if entry.answered == 1 else (f"{entry.answered:,} ratings", "them")
            raise InputError(f"“{entry.name}” has {what}: export {it} first, or tick that nobody needs {it}.")
        self.tables.delete(study)

    # -------------------------------------------------------------------------------------------------- its people

    def invite(self, study: str, name: str, most: int | None = None) -> str:
        """Make an invitation and return its link, relative to the site: annotate/<study>#<secret>.

        Raises:
            InputError: if the study is closed, it has too many invitations, or the name is invalid.
        """
        if self.tables.entry(study).state is StudyState.CLOSED:
            raise InputError("This study is closed: nobody can join it any more.")
        if len(self.tables.invitations(study)) >= MAX_INVITATIONS:
            raise InputError(f"There are {MAX_INVITATIONS:,} invitations, and no room for more.")
        _, secret = self.tables.invite(study, name, most)
        return f"{annotator_path(study)}#{secret}"

    # ------------------------------------------------------------------------------------------------------ helpers

    def _check_room(self) -> None:
        if len(self.tables.listing()) >= MAX_STUDIES:
            raise InputError(f"There are {MAX_STUDIES} studies, and no room for more: export and delete one first.")

    def _comparison(self, study: str) -> int:
        entry = self.tables.entry(study)
        if entry.comparison_id is None:
            raise InputError(f"“{entry.name}” has imported votes, and no responses of this desk.")
        return entry.comparison_id

    @staticmethod
    def _examples(settings: StudySettings, kind: ItemKind) -> list[Example]:
        return settings.training if kind is ItemKind.TRAINING else settings.gold

    def _set_examples(self, study: str, settings: StudySettings, kind: ItemKind, examples: list[Example]) -> None:
        changed = settings.model_copy(update={kind.value: examples})
        self.tables.set_settings(study, read_study_form(form_of(changed)))  # checked again


def annotator_path(study: str) -> str:
    """Return the address of a study's page for annotators, relative to the site."""
    return f"annotate/{study}"


def check_system(name: str) -> None:
    """Raise InputError if a mixture's name cannot be that of a system."""
    try:
        check_label(name)
    except ValueError as error:
        raise InputError(f"Mixtures: “{name[:40]}” is no name; save it under {error}") from None


def copy_name(name: str) -> str:
    """Return the name of a study's copy, as long as a name may be."""
    kept = name.removesuffix(COPY)
    while len(kept + COPY) > LONGEST or len((kept + COPY).encode()) > LONGEST_BYTES:
        kept = kept[:-1]
    return kept.rstrip() + COPY
