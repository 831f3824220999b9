"""Reading responses: what counts as broken, as authored, as on topic."""

from __future__ import annotations

from data.demo import corpus
from data.demo.reader import Reader

TOPICS = corpus.load_topics()
READER = Reader(TOPICS)
ONE, OTHER = TOPICS[0], TOPICS[1]


def test_a_composed_response_is_whole_and_on_topic() -> None:
    text = " ".join([*ONE.steps[:2], ONE.jokes[0]])
    reading = READER.read(text, ONE.topic)
    assert READER.is_whole(text)
    assert reading["broken_words"] == 0
    assert reading["sentences"] == reading["authored_sentences"] == reading["on_topic_sentences"] == 3
    assert reading["on_topic_responses"] == 1


def test_another_topics_advice_is_off_topic() -> None:
    reading = READER.read(" ".join([*OTHER.steps[:3], ONE.steps[0]]), ONE.topic)
    assert (reading["topical_sentences"], reading["on_topic_sentences"], reading["on_topic_responses"]) == (4, 1, 0)


def test_empty_talk_is_no_answer() -> None:
    opening = corpus.load_shared()["openings"][0]
    assert READER.is_whole(opening) and not READER.is_answer(opening)
    assert READER.is_answer(f"{opening} {ONE.brief[0]}")


def test_slips_are_seen() -> None:
    text = f"You canood question. {ONE.steps[0]}"
    reading = READER.read(text, ONE.topic)
    assert not READER.is_whole(text)
    assert reading["broken_words"] == 1  # canood
    assert reading["authored_sentences"] == 1
