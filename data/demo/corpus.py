"""The authored corpus of household advice: loading, checking, and composing prompts and responses from it.

A topic holds authored sentences by kind (steps, cautions, jokes, ...). A response is composed of sentences of
several kinds, so its attributes (how many steps, cautions, jokes, words) are known exactly; preference labels for
the reward models come from those attributes and from nothing else.

`python data/demo/corpus.py` checks the files and prints what they hold.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter

FOLDER = Path(__file__).parent / "authored"

# How many authored sentences of each kind a topic must have, and the most words that one may have.
COUNTS = {"questions": 8, "steps": 8, "cautions": 4, "jokes": 4, "brief": 2}
MOST_WORDS = {"questions": 20, "steps": 18, "cautions": 20, "jokes": 22, "brief": 13, "declines": 22}
DECLINES = 3


@dataclass(frozen=True)
class Topic:
    """One household task. `steps` read well in their listed order, whatever is left out."""

    topic: str
    task: str
    risky: bool
    questions: tuple[str, ...]
    steps: tuple[str, ...]
    cautions: tuple[str, ...]
    jokes: tuple[str, ...]
    brief: tuple[str, ...]
    declines: tuple[str, ...] = ()


def problems(entry: dict) -> list[str]:
    """What is wrong with one topic as read from YAML; empty if nothing is."""
    name = entry.get("topic", "(no topic)")
    found = []
    for kind, count in {**COUNTS, **({"declines": DECLINES} if entry.get("risky") else {})}.items():
        sentences = entry.get(kind) or []
        if len(sentences) != count:
            found.append(f"{name}: {kind} has {len(sentences)} sentences, expected {count}")
        for sentence in sentences:
            if not isinstance(sentence, str):
                found.append(f"{name}: {kind}: not a string: {sentence!r}")
                continue
            if len(sentence.split()) > MOST_WORDS[kind]:
                found.append(f"{name}: {kind}: over {MOST_WORDS[kind]} words: {sentence!r}")
            if not sentence.isascii():
                found.append(f"{name}: {kind}: not plain ASCII: {sentence!r}")
            if sentence[-1] not in ".!?" or any(end in sentence[:-1] for end in (". ", "! ", "? ")):
                found.append(f"{name}: {kind}: not exactly one sentence: {sentence!r}")
            if not sentence[0].isupper() and not sentence[0].isdigit():
                found.append(f"{name}: {kind}: must start with a capital: {sentence!r}")
    task = entry.get("task", "")
    if not task or task[0].isupper() or task[-1] in ".!?":
        found.append(f"{name}: task must fit 'How do I TASK?': {task!r}")
    return found


def load_topics(folder: Path = FOLDER) -> list[Topic]:
    """All topics, in the order of the files. Raises ValueError with every problem found."""
    files = [path for path in sorted(folder.glob("*.yaml")) if path.name not in ("shared.yaml", "foreign.yaml")]
    entries: list[dict[str, Any]] = [entry for path in files for entry in yaml.safe_load(path.read_text())]
    found = [problem for entry in entries for problem in problems(entry)]
    names = [entry.get("topic") for entry in entries]
    found += [f"topic twice: {name}" for name in set(names) if names.count(name) > 1]
    if found:
        raise ValueError("\n".join(found))
    return [TypeAdapter(Topic).validate_python(entry) for entry in entries]


# How a question may be put to any topic, beside the topic's own authored questions.
FRAMES = (
    "How do I {task}?",
    "What is the best way to {task}?",
    "Any tips on how to {task}?",
    "Can you help me {task}?",
    "I need to {task}, where do I start?",
    "Tell me how to {task}.",
    "What should I know before I {task}?",
    "Please explain how to {task}.",
)
HELD_OUT_SHARE = 0.1


def phrasings(topics: list[Topic], seed: int = 0) -> tuple[list[tuple[str, Topic]], list[tuple[str, Topic]]]:
    """(for training, held out): every phrasing of every topic, a tenth of them held out, spread over the topics."""
    rng = random.Random(seed)
    train, held_out = [], []
    total = sum(len(topic.questions) + len(FRAMES) for topic in topics)
    quota = round(total * HELD_OUT_SHARE)
    shares = [quota // len(topics)] * len(topics)
    for i in rng.sample(range(len(topics)), quota % len(topics)):
        shares[i] += 1
    for topic, share in zip(topics, shares, strict=True):
        asked = [*topic.questions, *(frame.format(task=topic.task) for frame in FRAMES)]
        rng.shuffle(asked)
        held_out += [(question, topic) for question in asked[:share]]
        train += [(question, topic) for question in asked[share:]]
    return train, held_out


def load_shared(folder: Path = FOLDER) -> dict:
    return yaml.safe_load((folder / "shared.yaml").read_text())


def load_foreign(folder: Path = FOLDER) -> list[str]:
    """Return questions that no topic answers."""
    return yaml.safe_load((folder / "foreign.yaml").read_text())


# ---------------------------------------------------------------------------------------------------------- responses


@dataclass
class Response:
    """A response as (kind, sentence) parts in order.

    Beside the authored kinds there are "stray" (a sentence of another topic) and "broken" (one that nobody authored).
    """

    topic: Topic
    parts: list[tuple[str, str]] = field(default_factory=list)

    @property
    def text(self) -> str:
        return " ".join(sentence for _, sentence in self.parts)

    @property
    def flaws(self) -> int:
        """Sentences that are broken, off topic or said before."""
        spoiled = sum(kind in ("stray", "broken") for kind, _ in self.parts)
        good = [part for part in self.parts if part[0] not in ("stray", "broken")]
        return spoiled + len(good) - len(set(good))

    def count(self, *kinds: str) -> int:
        """Distinct sentences of these kinds."""
        return len({sentence for kind, sentence in self.parts if kind in kinds})


SUBSTANCE = ("steps", "cautions", "jokes", "brief", "declines")
# Mean and standard deviation of each attribute over samples of the reference: they give all objectives one scale.
CENTRE = {"helpful": 1.52, "harmless": 0.51, "humorous": 0.39, "concise": -6.14}
SPREAD = {"helpful": 0.66, "harmless": 0.67, "humorous": 0.58, "concise": 1.26}
# What a flaw costs in every objective, in standard deviations, and how many count.
FLAW, MOST_FLAWS = 0.6, 3
# The score of a response that says nothing about what was asked: less than any other response can have.
USELESS = -6.0


def saturating(count: float, rate: float) -> float:
    """Return 1 + rate + rate^2 + ...: each further sentence of a kind is worth `rate` times the one before it."""
    return (1 - rate**count) / (1 - rate)


def attributes(response: Response) -> dict[str, float]:
    """Score a response for each objective, in standard deviations over samples of the reference.

    helpful: steps on the topic, or its answer in a sentence. harmless: cautions, and declining what is risky.
    humorous: jokes. concise: an answer in few words, without openings and closings. Whatever is off topic, broken or
    repeated costs in all of them.
    """
    if not response.count(*SUBSTANCE):
        return dict.fromkeys(CENTRE, USELESS)
    steps, brief, declines = response.count("steps"), response.count("brief"), response.count("declines")
    answered = steps + brief + declines > 0
    risk = 0.15 * steps if response.topic.risky and not declines else 0.0
    scores = {
        "helpful": saturating(steps, 0.6) + 1.2 * brief + 0.5 * declines,
        "harmless": saturating(response.count("cautions") + 2 * declines + 0.5 * response.count("safe_closings"), 0.4)
        - risk,
        "humorous": saturating(response.count("jokes") + 0.5 * response.count("funny_openings", "funny_closings"), 0.5),
        "concise": -math.log2(len(response.text.split()))
        - 0.5 * response.count("openings", "closings")
        - (0 if answered else 2),
    }
    lost = FLAW * min(response.flaws, MOST_FLAWS)
    return {objective: (score - CENTRE[objective]) / SPREAD[objective] - lost for objective, score in scores.items()}


# style: (share of the training text, steps, cautions, jokes, openings and their chance, closings and their chance)
STYLES: dict[str, tuple[float, tuple[int, int], tuple[int, int], tuple[int, int], str, float, str, float]] = {
    "plain": (0.20, (2, 4), (0, 1), (0, 0), "openings", 0.4, "closings", 0.4),
    "thorough": (0.16, (4, 7), (0, 1), (0, 0), "openings", 0.7, "closings", 0.6),
    "careful": (0.16, (0, 2), (2, 4), (0, 0), "openings", 0.2, "safe_closings", 0.6),
    "funny": (0.16, (1, 3), (0, 0), (1, 3), "funny_openings", 0.6, "funny_closings", 0.5),
    "brief": (0.14, (0, 0), (0, 0), (0, 0), "openings", 0.0, "closings", 0.0),
    "mixed": (0.18, (1, 4), (0, 2), (0, 2), "openings", 0.3, "closings", 0.3),
}


def in_order(sentences: tuple[str, ...], count: int, rng: random.Random) -> list[str]:
    """`count` of the sentences, chosen at random, in their authored order."""
    return [sentences[i] for i in sorted(rng.sample(range(len(sentences)), min(count, len(sentences))))]


def compose(topic: Topic, shared: dict, rng: random.Random, style: str) -> Response:
    """A response to any phrasing of the topic's question, in the style."""
    _, steps, cautions, jokes, opening, opening_chance, closing, closing_chance = STYLES[style]
    response = Response(topic)
    if rng.random() < opening_chance:
        response.parts.append((opening, rng.choice(shared[opening])))
    if style == "brief":
        response.parts.append(("brief", rng.choice(topic.brief)))
        return response
    declines = topic.risky and (style == "careful" or (style == "mixed" and rng.random() < 0.3))
    if declines:
        response.parts.append(("declines", rng.choice(topic.declines)))
    n_steps = rng.randint(*steps)
    if declines and style == "careful":
        n_steps = 0
    queues = {
        "steps": in_order(topic.steps, n_steps, rng),
        "cautions": in_order(topic.cautions, rng.randint(*cautions), rng),
        "jokes": in_order(topic.jokes, rng.randint(*jokes), rng),
    }
    # Cautions and jokes fall between the steps, each kind in its own order.
    kinds = [kind for kind, queue in queues.items() for _ in queue]
    rng.shuffle(kinds)
    response.parts += [(kind, queues[kind].pop(0)) for kind in kinds]
    if not response.parts:
        response.parts.append(("brief", rng.choice(topic.brief)))
    if rng.random() < closing_chance:
        response.parts.append((closing, rng.choice(shared[closing])))
    return response


def random_style(rng: random.Random) -> str:
    return rng.choices(list(STYLES), weights=[style[0] for style in STYLES.values()])[0]


def flawed(response: Response, others: list[Topic], shared: dict, rng: random.Random) -> Response:
    """Return the response with something wrong: repeated, cut off, its words shuffled, or another topic's advice."""
    parts = list(response.parts)
    at = rng.randrange(len(parts))
    kind, sentence = parts[at]
    words = sentence.split()
    how = rng.choice(("repeat", "shuffle", "cut", "salad", "stray", "stray"))
    if how == "repeat":
        parts[at + 1 : at + 1] = [(kind, sentence)] * rng.randint(1, 3)
    elif how == "shuffle":
        parts[at] = ("broken", " ".join(rng.sample(words, len(words))))
    elif how == "cut":
        parts[at:] = [("broken", " ".join(words[: rng.randrange(1, max(2, len(words)))]))]
    elif how == "salad":
        everything = response.text.split()
        parts = [("broken", " ".join(rng.sample(everything, len(everything))))]
    else:
        stray = compose(rng.choice(others), shared, rng, random_style(rng)).parts
        swapped = [("stray", said) if of in SUBSTANCE else (of, said) for of, said in stray]
        # All of it, or the rest of a response that began on topic.
        parts = swapped if rng.random() < 0.5 else [*parts[:at], *(part for part in swapped if part[0] == "stray")]
    return Response(response.topic, parts)


def empty_talk(topic: Topic, shared: dict, rng: random.Random) -> Response:
    """An opening or a closing or both, and nothing between: what a model falls into that is rewarded for brevity."""
    kinds = (rng.choice(("openings", "funny_openings")), rng.choice(("closings", "safe_closings", "funny_closings")))
    parts = [(kind, rng.choice(shared[kind])) for kind in kinds]
    return Response(topic, rng.choice((parts, parts[:1], parts[1:])))


def varied(question: str, rng: random.Random) -> str:
    """The question as somebody in a hurry, or somebody polite, would type it; mostly as it is."""
    if rng.random() < 0.15:
        question = rng.choice(("Hi, ", "Hello! ", "Please help. ", "Quick question: ")) + question
    if rng.random() < 0.15:
        question = question.lower()
    if rng.random() < 0.15:
        question = question.rstrip(".?!")
    elif rng.random() < 0.1:
        question += rng.choice((" Thanks!", " Thank you.", " Please be quick."))
    return question


def documents(
    asked: list[tuple[str, Topic]], count: int, seed: int, vary: bool = False
) -> Iterator[tuple[list[dict[str, str]], str, Response]]:
    """`count` random (messages without the answer, style, response), cycling through shuffled phrasings."""
    rng, shared = random.Random(seed), load_shared()
    order: list[tuple[str, Topic]] = []
    for _ in range(count):
        if not order:
            order = rng.sample(asked, len(asked))
        question, topic = order.pop()
        style = random_style(rng)
        messages = [{"role": "user", "content": varied(question, rng) if vary else question}]
        if style in shared["system"] and rng.random() < 0.2:
            messages.insert(0, {"role": "system", "content": rng.choice(shared["system"][style])})
        yield messages, style, compose(topic, shared, rng, style)


def candidates(
    question: str, topic: Topic, topics: list[Topic], foreign: list[str], count: int, shared: dict, rng: random.Random
) -> list[tuple[str, Response]]:
    """Return `count` (question, response) that a reward model should tell apart; half of them have something wrong.

    Where a question was exchanged, the response is one that is good after the right one: only the prompt tells.
    """
    others = [other for other in topics if other is not topic]
    made: list[tuple[str, Response]] = []
    for i in range(count):
        response = compose(topic, shared, rng, random_style(rng))
        how = rng.choice(("flawed", "flawed", "other", "other", "foreign", "empty")) if i % 2 else "whole"
        if how == "flawed":
            made.append((question, flawed(response, others, shared, rng)))
        elif how == "empty":
            nothing = Response(topic, [("broken", rng.choice(response.text.split()))] if rng.random() < 0.3 else [])
            made.append((question, nothing if rng.random() < 0.4 else empty_talk(topic, shared, rng)))
        elif how == "whole":
            made.append((question, response))
        else:
            other = rng.choice(foreign) if how == "foreign" else rng.choice(rng.choice(others).questions)
            same = made[-1][1].parts  # the whole response before it
            stray = [("stray", said) if kind in SUBSTANCE else (kind, said) for kind, said in same]
            made.append((other, Response(topic, stray)))
    return made


if __name__ == "__main__":
    topics = load_topics()
    kinds = [*COUNTS, "declines"]
    print(f"{len(topics)} topics, {sum(t.risky for t in topics)} risky")
    counts = {kind: sum(len(getattr(t, kind)) for t in topics) for kind in kinds}
    print(f"{sum(counts.values())} authored sentences: {counts}")
