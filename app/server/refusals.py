"""The answer to a request that the site's checks refuse: a line of text, in OpenAI's envelope at /v1."""

from __future__ import annotations

from starlette.responses import PlainTextResponse, Response
from starlette.types import Scope

from engine.api.api_error import ApiError

API = ("v1", "tokenize", "detokenize", "tokenizer_info")  # the first parts of the addresses of OpenAI's protocol


def refusal_response(scope: Scope, words: str, status: int, retry_after: int | None = None) -> Response:
    """Return the answer to a request that is refused, after which the connection is closed.

    Args:
        scope: The request.
        words: One line that says what is wrong and how to mend it.
        status: The HTTP status.
        retry_after: Seconds after which the same request may succeed.
    """
    headers = {"Cache-Control": "no-store", "Connection": "close"}
    if retry_after is not None:
        headers["Retry-After"] = str(retry_after)
    # Anywhere in the path: behind a proxy it begins with the site's own root.
    if not set(API).isdisjoint(scope["path"].split("/")):
        return ApiError(status, words, headers=headers).response()
    return PlainTextResponse(words, status, headers=headers)
