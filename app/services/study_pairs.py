"""The pairs of a study, from the responses of a comparison."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

from app.schemas.study import Example, StudySettings
from app.storage.comparisons import StoredResponse
from app.storage.study_items import NewItem


@dataclass(frozen=True)
class StudyPairs:
    """The pairs that annotators are given.

    Attributes:
        items: The pairs, prompt by prompt.
        identical: How many pairs are left out because both texts are the same: nobody could prefer one, and an
            automatic tie would be no judgement of a person.
        known: How many are left out because they are training or gold pairs.
    """

    items: list[NewItem]
    identical: int
    known: int


def system_pairs(count: int, pairing: str) -> Iterator[tuple[int, int]]:
    """Yield the pairs of systems that meet on each prompt, as indices.

    Args:
        count: Number of systems.
        pairing: As in `StudySettings`: against the first only, or all. With "uncertain", which of all pairs are rated
            is drawn when an annotator asks for one.
    """
    return ((0, other) for other in range(1, count)) if pairing == "first" else combinations(range(count), 2)


def study_pairs(responses: Iterable[StoredResponse], systems: int, settings: StudySettings) -> StudyPairs:
    """Return the pairs of a comparison's responses.

    Args:
        responses: The responses; a prompt without one of each system is left out.
        systems: Number of systems.
        settings: The study's settings.
    """
    known = {texts for example in (*settings.training, *settings.gold) for texts in both_orders(example)}
    found, identical, used = [], 0, 0
    for row in by_prompt(responses, systems):
        for first, second in system_pairs(systems, settings.pairing):
            one, two = row[first], row[second]
            if one.text.strip() == two.text.strip():
                identical += 1
            elif (one.prompt, one.text, two.text) in known:
                used += 1
            else:
                found.append(
                    NewItem(
                        one.prompt,
                        first_system=first,
                        second_system=second,
                        first_id=one.completion,
                        second_id=two.completion,
                    )
                )
    return StudyPairs(found, identical, used)


def both_orders(example: Example) -> tuple[tuple[str, str, str], tuple[str, str, str]]:
    """Return the texts of an example, and with its responses the other way round."""
    return (example.prompt, example.first, example.second), (example.prompt, example.second, example.first)


def by_prompt(responses: Iterable[StoredResponse], systems: int) -> Iterator[Sequence[StoredResponse]]:
    """Yield the responses to each prompt, one of each system in order; prompts that lack one are left out."""
    rows: dict[int, dict[int, StoredResponse]] = {}
    for response in responses:
        rows.setdefault(response.place, {})[response.mixture] = response
    for _, row in sorted(rows.items()):
        if len(row) == systems:
            yield [row[system] for system in range(systems)]
