"""The text of a response that grows by a token at a time, at a cost that does not grow with it."""

from __future__ import annotations

from collections.abc import Callable

CONTEXT = 8  # tokens that are decoded again before a new one: its text may depend on them
WINDOW = 32  # tokens; a longer window is moved


class Detokenizer:
    """The text of growing token ids, equal to that of decoding them all at once.

    `tokenizers.decoders.DecodeStream` does this for tokenizers of that library alone, and leaves out bytes that never
    become a character.
    """

    def __init__(self, decode: Callable[[list[int]], str]) -> None:
        """Start an empty response. decode: the text of token ids."""
        self._decode = decode
        self._first = 0  # the first token of the window
        self._head = ""  # the text before the window

    def text(self, tokens: list[int]) -> str:
        """Return the text of all tokens, which begin with those of earlier calls."""
        return self._head + self._decode(tokens[self._first :])

    def settle(self, tokens: list[int]) -> None:
        """Note that more tokens cannot change the text of these, so that most are not decoded again."""
        if len(tokens) - self._first <= WINDOW:
            return
        first = len(tokens) - CONTEXT
        whole, rest = self._decode(tokens[self._first :]), self._decode(tokens[first:])
        # Not within what is decoded as one, such as a run of bytes; a later call finds a better place.
        if whole.endswith(rest):
            self._head += whole[: len(whole) - len(rest)]
            self._first = first
