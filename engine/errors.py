"""The error for invalid input, and a function that turns other libraries' errors into one line."""

from __future__ import annotations

LONGEST = 400  # characters of another library's message; some list every model that they know


class InputError(ValueError):
    """Invalid input from the caller. The message is one line with the problem and its remedy."""


class EngineError(InputError):
    """An engine elsewhere cannot be reached, or does not fit. The message is one line, with the remedy."""


class TooLongError(InputError):
    """A prompt, with the tokens to be drawn after it, does not fit the models."""


def one_line(error: BaseException, longest: int = LONGEST) -> str:
    """Return the whole message of an exception as one line, without trailing punctuation.

    Messages of several lines are joined rather than cut after the first line, which is often a heading that ends in a
    colon. Messages longer than `longest` characters are cut between two words.
    """
    text = " ".join(str(error).split())
    if isinstance(error, (LookupError, AttributeError, TypeError)):
        text = f"{type(error).__name__}: {text}"  # "'model_type'" alone says nothing
    if len(text) > longest:
        return text[:longest].rsplit(" ", 1)[0].rstrip(" .:;,") + " ..."
    return text.rstrip(" .:;,") or type(error).__name__
