"""The pairs behind one cell of the matrix of wins: prompts, responses, votes and comments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from app.services.vote_sources import DESK, VoteFilter, VoteSource, outcome_of
from app.storage.vote_tables import StoredVote, VoteTables
from engine.votes.table import BOTH_BAD, FIRST, SECOND, TIE

MOST = 200  # items in the dialog


def pairs_value(
    tables: VoteTables, source: VoteSource, chosen: VoteFilter, first: int, second: int, names: bool = True
) -> dict[str, Any]:
    """Return the pairs of two systems for the dialog's script, which inserts every string as text.

    Args:
        tables: The store's votes.
        source: Where the votes are from.
        chosen: Which votes count.
        first: Number of the system that the dialog's responses begin with.
        second: Number of the other system.
        names: Whether annotators are named.
    """
    votes = [vote for vote in chosen.apply(source) if {vote.first, vote.second} == {first, second}]
    items: dict[str, list[StoredVote]] = {}
    for vote in votes:
        items.setdefault(vote.item, []).append(vote)
    shown = list(items.values())[:MOST]
    extra = comments_of(tables, source, first, second)
    ids = [one for of_item in shown for one in (of_item[0].first_id, of_item[0].second_id) if one is not None]
    texts = tables.texts(ids)
    asked = prompts_of_items(tables, source, shown, extra)
    labels = [source.systems[first].name, source.systems[second].name]
    values = [
        item_value(of_item, first, labels, texts, asked[of_item[0].item], extra, source.people if names else {})
        for of_item in shown
    ]
    counted = f"{len(items)} pair{'' if len(items) == 1 else 's'}, {len(votes)} vote{'' if len(votes) == 1 else 's'}."
    if len(items) > MOST:
        counted += f" The first {MOST} are shown."
    return {
        "title": f"{labels[0]} against {labels[1]}",
        "about": counted,
        "first": labels[0],
        "second": labels[1],
        "items": values,
    }


def item_value(
    votes: Sequence[StoredVote],
    first: int,
    labels: Sequence[str],
    texts: Mapping[int, str],
    prompt: str,
    extra: Mapping[tuple[str, str, str], Mapping[str, Any]],
    people: Mapping[str, str],
) -> dict[str, Any]:
    """Return one item: its prompt, both responses, and its votes."""
    vote = votes[0]
    responses = [texts.get(vote.first_id or 0, vote.first_text), texts.get(vote.second_id or 0, vote.second_text)]
    turned = vote.first != first
    if turned:
        responses.reverse()
    words = {FIRST: labels[turned], SECOND: labels[not turned], TIE: "Tie", BOTH_BAD: "Both bad"}
    outcomes = [outcome_of(one.choice, one.swapped) for one in votes if one.kind != "repeat"]
    won = [outcomes.count(SECOND if turned else FIRST), outcomes.count(FIRST if turned else SECOND)]
    rest = len(outcomes) - sum(won)
    known = None not in responses
    return {
        "prompt": prompt,
        "tally": f"{won[0]} : {won[1]}" + (f", {rest} tied" if rest else ""),
        "first": responses[0] if known else None,
        "second": responses[1] if known else None,
        "votes": [
            {
                "who": people.get(one.annotator, "an annotator") + (", repeated" if one.kind == "repeat" else ""),
                "verdict": words[outcome_of(one.choice, one.swapped)],
                "at": one.at[:10],
                "comment": extra.get((one.item, one.annotator, one.kind), {}).get("comment", ""),
                "flagged": bool(extra.get((one.item, one.annotator, one.kind), {}).get("flagged")),
            }
            for one in votes
        ],
    }


def comments_of(
    tables: VoteTables, source: VoteSource, first: int, second: int
) -> dict[tuple[str, str, str], dict[str, Any]]:
    """Return {(item, annotator, kind): row with comment, flag and prompt} of a study's pairs; ratings have none."""
    if source.id == DESK:
        return {}
    rows = tables.pairs(source.id, first, second)
    return {(row["id"], row["annotator_id"], row["kind"]): row for row in rows}


def prompts_of_items(
    tables: VoteTables,
    source: VoteSource,
    items: Sequence[Sequence[StoredVote]],
    extra: Mapping[tuple[str, str, str], Mapping[str, Any]],
) -> dict[str, str]:
    """Return {item: its prompt as text}."""
    if source.id != DESK:
        asked = {row["id"]: row["asked"] for row in extra.values()}
        return {votes[0].item: as_text(asked.get(votes[0].item, votes[0].prompt)) for votes in items}
    known = tables.prompts(int(votes[0].prompt) for votes in items)
    return {votes[0].item: as_text(known.get(int(votes[0].prompt), "")) for votes in items}


def as_text(prompt: Any) -> str:
    """Return a prompt as text; a conversation has a line for each speaker."""
    if isinstance(prompt, str):
        return prompt
    return "\n\n".join(f"{message['role']}: {message['content']}" for message in prompt)
