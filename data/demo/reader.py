"""Reading responses with the corpus at hand: are the words whole, are the sentences about what was asked?"""

from __future__ import annotations

import re
from collections import Counter

from data.demo import corpus


class Reader:
    """What the corpus knows: every authored sentence and its topic, every authored word."""

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
        """Whether every sentence is one that was authored."""
        return all(sentence in self.authored for sentence in sentences_of(text))

    def is_answer(self, text: str) -> bool:
        """Whether there is more to it than openings and closings."""
        return any(sentence in self.topic_of for sentence in sentences_of(text))

    def read(self, text: str, topic: str) -> Counter:
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
    return [sentence for sentence in re.split(r"(?<=[.!?]) +", text.strip()) if sentence]


def words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+(?:['-][a-z0-9]+)*", text.lower())
