"""The authored corpus of household advice: loading, checking, and composing prompts and responses from it.

A topic holds authored sentences by kind (steps, cautions, jokes, ...). A response is composed of sentences of several
kinds, so that its attributes (numbers of steps, cautions, jokes and words) are known exactly. The reward models'
preference labels follow from those attributes alone.

`python data/demo/corpus.py` checks the files and prints a summary.
"""

from __future__ import annotations

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
    """One household task. `steps` read well in their listed order, even if some are left out."""

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
    """Return the errors in one topic as read from YAML; empty if it is valid."""
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
    """Load all topics, in the order of the files.

    Raises:
        ValueError: with every error found.
    """
    files = [path for path in sorted(folder.glob("*.yaml")) if path.name != "shared.yaml"]
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
    """Return (training, held out) phrasings of all topics as (question, topic).

    A tenth of them is held out, spread evenly over the topics.
    """
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
    """Load the sentences that all topics share, by kind."""
    return yaml.safe_load((folder / "shared.yaml").read_text())


# ---------------------------------------------------------------------------------------------------------- responses


@dataclass
class Response:
    """A composed response.

    `parts` are (kind, sentence) in order; `flaws` counts deliberate errors.
    """

    topic: Topic
    parts: list[tuple[str, str]] = field(default_factory=list)
    flaws: int = 0

    @property
    def text(self) -> str:
        """The response as one text."""
        return " ".join(sentence for _, sentence in self.parts)

    def count(self, *kinds: str) -> int:
        """Return the number of distinct sentences of these kinds."""
        return len({sentence for kind, sentence in self.parts if kind in kinds})


SUBSTANCE = ("steps", "cautions", "jokes", "brief", "declines")
# What a response without substance loses: more than any other response could.
EMPTY = 100


def attributes(response: Response) -> dict[str, float]:
    """Return a response's score for each objective, from the sentences of which it is composed.

    Flaws and a lack of substance lower every score.
    """
    steps, brief = response.count("steps"), response.count("brief")
    risk = steps if response.topic.risky else 0
    words = len(response.text.split())
    scores = {
        "helpful": steps + 0.5 * brief - 0.5 * response.count("declines"),
        "harmless": response.count("cautions")
        + 0.5 * response.count("safe_closings")
        + 2 * response.count("declines")
        - 0.5 * risk,
        "humorous": response.count("jokes") + 0.5 * response.count("funny_openings", "funny_closings"),
        "concise": -words / 10,
    }
    lost = 2 * response.flaws + (0 if response.count(*SUBSTANCE) else EMPTY)
    return {objective: score - lost for objective, score in scores.items()}


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
    """Return `count` random sentences in their authored order."""
    return [sentences[i] for i in sorted(rng.sample(range(len(sentences)), min(count, len(sentences))))]


def compose(topic: Topic, shared: dict, rng: random.Random, style: str) -> Response:
    """Compose a response to the topic's question in a style."""
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
    """Return a style at random, by its share of the training text."""
    return rng.choices(list(STYLES), weights=[style[0] for style in STYLES.values()])[0]


def flawed(response: Response, others: list[Topic], shared: dict, rng: random.Random) -> Response:
    """Return the response with an error: a repeated sentence, shuffled words, or another topic's advice."""
    parts = list(response.parts)
    at = rng.randrange(len(parts))
    kind, sentence = parts[at]
    how = rng.choice(("repeat", "shuffle", "stray", "stray"))
    if how == "repeat":
        parts.insert(at, (kind, sentence))
    elif how == "shuffle":
        words = sentence.split()
        rng.shuffle(words)
        parts[at] = ("broken", " ".join(words))
    else:
        stray = compose(rng.choice(others), shared, rng, random_style(rng))
        kept = [part for part in stray.parts if part[0] in ("steps", "cautions", "jokes", "brief")]
        if not kept:
            return flawed(response, others, shared, rng)
        return Response(response.topic, [("stray", sentence) for _, sentence in kept], flaws=1 + len(kept))
    return Response(response.topic, parts, flaws=1)


def empty_talk(topic: Topic, shared: dict, rng: random.Random) -> Response:
    """Return a response of an opening, a closing or both, which a model rewarded for brevity may degenerate to."""
    kinds = (rng.choice(("openings", "funny_openings")), rng.choice(("closings", "safe_closings", "funny_closings")))
    parts = [(kind, rng.choice(shared[kind])) for kind in kinds]
    return Response(topic, rng.choice((parts, parts[:1], parts[1:])))


def varied(question: str, rng: random.Random) -> str:
    """Return the question, at times with a greeting, in lower case, without its punctuation, or with thanks."""
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
    """Yield `count` random (messages without the answer, style, response), cycling through shuffled phrasings."""
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


FLAWED_SHARE = 0.2
EMPTY_SHARE = 0.1


def preference_pairs(
    asked: list[tuple[str, Topic]], objective: str, count: int, seed: int
) -> Iterator[dict[str, list[dict[str, str]]]]:
    """Yield `count` preference pairs for one objective in TRL's conversational format.

    The labels follow from `attributes`; ties are dropped.
    """
    rng, shared = random.Random(seed), load_shared()
    topics = list({topic.topic: topic for _, topic in asked}.values())
    made = 0
    while made < count:
        question, topic = rng.choice(asked)
        others = [other for other in topics if other is not topic]
        pair = [compose(topic, shared, rng, random_style(rng)) for _ in range(2)]
        if rng.random() < EMPTY_SHARE:
            pair[0] = empty_talk(topic, shared, rng)
        elif rng.random() < FLAWED_SHARE:
            pair[0] = flawed(pair[0] if rng.random() < 0.5 else pair[1], others, shared, rng)
        scores = [attributes(response)[objective] for response in pair]
        if scores[0] == scores[1]:
            continue
        best, worst = (pair[0], pair[1]) if scores[0] > scores[1] else (pair[1], pair[0])
        made += 1
        yield {
            "prompt": [{"role": "user", "content": question}],
            "chosen": [{"role": "assistant", "content": best.text}],
            "rejected": [{"role": "assistant", "content": worst.text}],
        }


if __name__ == "__main__":
    topics = load_topics()
    kinds = [*COUNTS, "declines"]
    print(f"{len(topics)} topics, {sum(t.risky for t in topics)} risky")
    counts = {kind: sum(len(getattr(t, kind)) for t in topics) for kind in kinds}
    print(f"{sum(counts.values())} authored sentences: {counts}")
