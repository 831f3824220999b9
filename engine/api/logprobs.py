"""Log-probs of tokens as OpenAI's two protocols write them. They are the mixture's, before temperature and so on."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from typing import Any

from engine.api.token_texts import TokenTexts
from engine.inference.completion import Token

LEAST = -9999.0  # what OpenAI writes for a probability of zero: JSON has no infinity


def without_infinity(log_prob: float) -> float:
    """Return a log-prob as JSON can hold it."""
    return max(log_prob, LEAST)


def likeliest_of(token: Token, count: int) -> list[tuple[int, float]]:
    """Return (token id, log-prob) of the likeliest tokens at a token's position, `count` at most."""
    top = token.top_logprobs
    if top is None or not count:
        return []
    return top.likeliest(min(count, (len(top.seen) - 1) // (len(top.policies) + 1)))


def log_prob_of(token: Token, likeliest: Sequence[tuple[int, float]]) -> float:
    """Return a token's log-prob: the same number as among the likeliest, so that clients may compare them."""
    own = token.log_prob
    assert own is not None, "a given token"
    return dict(likeliest).get(token.id, own)


class ChatLogprobs:
    """Entries of `logprobs.content` of chat completions."""

    def __init__(self, texts: TokenTexts, count: int) -> None:
        """count: the number of likeliest tokens of each position."""
        self.texts, self.count = texts, count

    def entry(self, token: Token) -> dict[str, Any]:
        """Return a token's entry."""
        likeliest = likeliest_of(token, self.count)
        top = [self._one(other, log_prob) for other, log_prob in likeliest]
        return {**self._one(token.id, log_prob_of(token, likeliest)), "top_logprobs": top}

    def _one(self, token: int, log_prob: float) -> dict[str, Any]:
        raw = self.texts.bytes_of(token)
        return {"token": self.texts.text_of(token), "logprob": without_infinity(log_prob), "bytes": list(raw)}


class LegacyLogprobs:
    """The four lists of `logprobs` of completions, of one choice, as its tokens are added."""

    def __init__(self, texts: TokenTexts, count: int) -> None:
        """count: the number of likeliest tokens of each position."""
        self.texts, self.count = texts, count
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._offset = 0  # in the choice's text, of the next token
        self._begun = False
        self._clear()

    def _clear(self) -> None:
        self.tokens: list[str] = []
        self.token_logprobs: list[float | None] = []
        self.top_logprobs: list[dict[str, float] | None] = []
        self.text_offset: list[int] = []

    def add_drawn(self, token: Token) -> None:
        """Add a token that was drawn."""
        likeliest = likeliest_of(token, self.count)
        self.add(token.id, log_prob_of(token, likeliest), likeliest, not self.texts.is_special(token.id))

    def add(self, token: int, log_prob: float | None, likeliest: Sequence[tuple[int, float]], shown: bool) -> None:
        """Add a token.

        Args:
            token: its id.
            log_prob: its log-prob; None for the first token of a text.
            likeliest: (token id, log-prob) of the likeliest tokens at its position, the likeliest first.
            shown: whether the choice's text has it.
        """
        text = self.texts.text_of(token)
        self.tokens.append(text)
        self.text_offset.append(self._offset)
        if log_prob is None:
            self.token_logprobs.append(None)
            self.top_logprobs.append(None)
        else:
            own = without_infinity(dict(likeliest).get(token, log_prob))
            top: dict[str, float] = {}
            for other, value in likeliest:
                top.setdefault(self.texts.text_of(other), without_infinity(value))
            if top:
                top.setdefault(text, own)
            self.token_logprobs.append(own)
            self.top_logprobs.append(top or None)
        if shown:
            written = len(self._decoder.decode(self.texts.bytes_of(token)))
            if not self._begun and self.texts.drops_space(token):
                written -= 1
            self._offset += written
            self._begun = True

    def skip(self, text: str) -> None:
        """Continue after a text whose tokens are not listed."""
        self._offset += len(text)
        self._begun = self._begun or bool(text)

    def taken(self) -> dict[str, Any]:
        """Return the lists of the tokens that were added since the last call."""
        found = {
            "tokens": self.tokens,
            "token_logprobs": self.token_logprobs,
            "top_logprobs": self.top_logprobs if self.count else None,
            "text_offset": self.text_offset,
        }
        self._clear()
        return found
