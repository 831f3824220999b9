"""Errors in OpenAI's envelope: a status, one line that says what is wrong and how to mend it, a type and a code."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse

INVALID, AUTHENTICATION, LIMIT, SERVER = (
    "invalid_request_error",
    "authentication_error",
    "rate_limit_error",
    "server_error",
)
TYPES = {401: AUTHENTICATION, 429: LIMIT}
FIELD = re.compile(r"([a-z_]\w*(?:\.\w+|\[\d+\])*): ", re.ASCII)  # that a message is about


class ApiError(Exception):
    """A request that is answered with an error."""

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Make an error.

        Args:
            status: the HTTP status.
            message: one line; if it begins with the name of a field and a colon, that is the envelope's `param`.
            code: a word for programs.
            headers: more headers of the answer.
        """
        super().__init__(message)
        self.status, self.message, self.code, self.headers = status, " ".join(message.split()), code, headers

    def envelope(self) -> dict[str, Any]:
        """Return the error as OpenAI's clients read it."""
        field = FIELD.match(self.message)
        kind = TYPES.get(self.status, SERVER if self.status >= 500 else INVALID)
        return {
            "error": {
                "message": self.message,
                "type": kind,
                "param": field[1] if field else None,
                "code": self.code,
            }
        }

    def response(self) -> JSONResponse:
        """Return the answer."""
        return JSONResponse(self.envelope(), self.status, headers=dict(self.headers or {}))


def bad_request(message: str, code: str | None = None) -> ApiError:
    """Return the error of a request whose fields are wrong."""
    return ApiError(400, message, code)


def unavailable(message: str) -> ApiError:
    """Return the error of a server that cannot answer now; clients try again after some seconds."""
    return ApiError(503, message, "engine_unavailable", {"Retry-After": "5"})


def failed() -> ApiError:
    """Return the error of a request that failed for a reason which only the log has."""
    return ApiError(500, "The server failed on this request; its log says more.", "internal_error")
