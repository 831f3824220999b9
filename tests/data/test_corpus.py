"""The corpus, and the attributes that preference labels come from."""

from __future__ import annotations

import random

from data.demo import corpus
from data.demo.corpus import Response, attributes

TOPICS = corpus.load_topics()
SAFE = next(topic for topic in TOPICS if not topic.risky)
RISKY = next(topic for topic in TOPICS if topic.risky)


def made(topic: corpus.Topic, *parts: tuple[str, str], flaws: int = 0) -> dict[str, float]:
    return attributes(Response(topic, list(parts), flaws))


def steps(topic: corpus.Topic, count: int) -> list[tuple[str, str]]:
    return [("steps", sentence) for sentence in topic.steps[:count]]


def test_more_steps_are_more_helpful_and_less_concise() -> None:
    two, five = made(SAFE, *steps(SAFE, 2)), made(SAFE, *steps(SAFE, 5))
    assert five["helpful"] == 5 > two["helpful"] == 2
    assert five["concise"] < two["concise"]
    assert five["harmless"] == two["harmless"] == five["humorous"] == 0


def test_a_sentence_said_twice_counts_once() -> None:
    assert made(SAFE, *steps(SAFE, 1), *steps(SAFE, 1))["helpful"] == 1


def test_on_risky_topics_plain_steps_cost_harmlessness_and_declining_earns_it() -> None:
    plain = made(RISKY, *steps(RISKY, 3))
    declined = made(RISKY, ("declines", RISKY.declines[0]), ("cautions", RISKY.cautions[0]))
    assert plain["harmless"] == -1.5
    assert declined["harmless"] == 3
    assert declined["helpful"] < plain["helpful"]


def test_jokes_and_flaws() -> None:
    joke = made(SAFE, ("jokes", SAFE.jokes[0]))
    assert joke["humorous"] == 1
    assert made(SAFE, ("jokes", SAFE.jokes[0]), flaws=1)["humorous"] == -1


def test_empty_talk_loses_to_everything_else() -> None:
    shared = corpus.load_shared()
    rng = random.Random(0)
    for topic in (SAFE, RISKY):
        for _ in range(20):
            empty = attributes(corpus.empty_talk(topic, shared, rng))
            whole = attributes(corpus.compose(topic, shared, rng, corpus.random_style(rng)))
            assert all(empty[objective] < whole[objective] for objective in whole)


def test_saying_nothing_of_use_is_not_concise() -> None:
    opening = made(SAFE, ("openings", "Sure, here is what to do."))
    assert opening["concise"] < made(SAFE, *steps(SAFE, 2))["concise"] - 2


def test_preference_pairs_are_labelled_by_the_attributes() -> None:
    train, _ = corpus.phrasings(TOPICS)
    pairs = list(corpus.preference_pairs(train, "concise", 200, seed=3))
    assert pairs == list(corpus.preference_pairs(train, "concise", 200, seed=3))
    shorter = sum(len(p["chosen"][0]["content"].split()) < len(p["rejected"][0]["content"].split()) for p in pairs)
    assert 150 < shorter < 200  # three in ten are flawed or empty, and then it may be the longer that wins


def test_flaws_are_seen() -> None:
    rng, shared = random.Random(0), corpus.load_shared()
    for _ in range(50):
        whole = corpus.compose(SAFE, shared, rng, "plain")
        broken = corpus.flawed(whole, [RISKY], shared, rng)
        assert broken.flaws >= 1
        assert broken.text != whole.text


def test_every_style_composes_for_every_topic() -> None:
    rng, shared = random.Random(1), corpus.load_shared()
    for topic in TOPICS:
        for style in corpus.STYLES:
            response = corpus.compose(topic, shared, rng, style)
            assert response.text
            assert {kind for kind, _ in response.parts} - {"declines"} or topic.risky


def test_problems_are_named() -> None:
    entry = {"topic": "t", "task": "Do it.", "steps": ["two. sentences."], "questions": ["Curly “quotes”?"]}
    found = "\n".join(corpus.problems(entry))
    for said in ("steps has 1 sentences, expected 8", "not exactly one sentence", "not plain ASCII", "task must fit"):
        assert said in found
