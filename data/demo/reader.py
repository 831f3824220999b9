"""Checks of responses against the corpus: are the words and sentences authored, and do they match the topic?"""

from __future__ import annotations

import re
from collections import Counter

from data.demo import corpus


class Reader:
    """Index of the corpus: every authored sentence with its topic, and every authored word."""

    def __init__(self, topics: list[corpus.Topic]) -> None:
        shared = corpus.load_shared()
        self.topic_of: dict[str, str] = {}
        sentences = [s for kind, group in shared.items() if kind != "system" for s in group]
        for topic in topics:
            own = [*topic.steps, *topic.cautions, *topic.jokes, *topic.brief, *topic.declines]
            self.topic_of.update(dict.fromkeys(own, topic.topic))
            sentences += [*own, *topic.questions, topic.task]
        self.authored = {*self.topic_of, *sentences}
        self.words = {word for sentence in sentences for word in words(sentence)}

    def is_whole(self, text: str) -> bool:
        """Return whether every sentence is an authored one."""
        return all(sentence in self.authored for sentence in sentences_of(text))

    def is_answer(self, text: str) -> bool:
        """Return whether the text has a sentence other than openings and closings."""
        return any(sentence in self.topic_of for sentence in sentences_of(text))

    def read(self, text: str, topic: str) -> Counter:
        """Return counts of words, sentences and on-topic sentences of a response to a question on a topic.

        A response is on topic if more than half of its sentences that belong to a topic belong to this one.
        """
        sentences = sentences_of(text)
        named = [self.topic_of[sentence] for sentence in sentences if sentence in self.topic_of]
        return Counter(
            responses=1,
            words=len(words(text)),
            broken_words=sum(word not in self.words for word in words(text)),
            sentences=len(sentences),
            authored_sentences=sum(sentence in self.authored for sentence in sentences),
            topical_sentences=len(named),
            on_topic_sentences=named.count(topic),
            on_topic_responses=2 * named.count(topic) > len(named) if named else 0,
        )


def sentences_of(text: str) -> list[str]:
    """Split a text into sentences."""
    return [sentence for sentence in re.split(r"(?<=[.!?]) +", text.strip()) if sentence]


def words(text: str) -> list[str]:
    """Return the words of a text in lower case."""
    return re.findall(r"[a-z0-9]+(?:['-][a-z0-9]+)*", text.lower())
