"""Headers that tell a browser what a desk's pages may do and who may show them."""

from __future__ import annotations

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.server.access import Access

# Gradio's page has inline scripts and styles, and compiles the templates of its components with `new Function`.
POLICY = {
    "default-src": "'self'",
    "script-src": "'self' 'unsafe-inline' 'unsafe-eval'",
    "style-src": "'self' 'unsafe-inline'",
    "img-src": "'self' data: blob:",
    "media-src": "'self' data: blob:",
    "font-src": "'self' data:",
    "connect-src": "'self'",
    "worker-src": "'self' blob:",
    "frame-src": "'none'",
    "object-src": "'none'",
    "base-uri": "'self'",
    "form-action": "'self'",
}
FILE_POLICY = "default-src 'none'; sandbox"  # an uploaded file is no page
FILES = "/gradio_api/file="


class SecurityHeaders:
    """ASGI middleware that adds the Content-Security-Policy and its like, and removes all CORS headers."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self.app = app
        ancestors = " ".join(("'self'", *access.framed_by))
        self.policy = "; ".join(f"{name} {value}" for name, value in {**POLICY, "frame-ancestors": ancestors}.items())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        is_file = FILES in scope["path"]

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                kept = [item for item in message.get("headers", []) if not item[0].startswith(b"access-control-")]
                headers = MutableHeaders(raw=kept)
                # A page without Gradio, such as the annotators', has a stricter policy of its own.
                if is_file or "content-security-policy" not in headers:
                    headers["Content-Security-Policy"] = FILE_POLICY if is_file else self.policy
                headers["X-Content-Type-Options"] = "nosniff"
                headers["Referrer-Policy"] = "same-origin"
                message = {**message, "headers": headers.raw}
            await send(message)

        return await self.app(scope, receive, send_with_headers)
