"""The cookies by which a desk recognises browsers and its owner."""

from __future__ import annotations

import hmac
import re
import secrets
from urllib.parse import parse_qsl, urlencode

from itsdangerous import BadSignature, URLSafeTimedSerializer
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.server.access import Access
from app.services.rate_limit import RateLimit
from app.services.visitor import KEY, Account, Visitor, network_of, visitor_of_scope

BROWSER, OWNER, ACCOUNT = "mixdesk_browser", "mixdesk_owner", "mixdesk_account"  # the cookies
VISITORS = "mixdesk.visitors"  # of a request's ASGI scope
SIGNED_IN_FOR = 8 * 3600  # seconds
BROWSER_ID = re.compile(r"[\w-]{22}", re.ASCII)
YEAR = 365 * 24 * 3600  # seconds
ATTEMPTS = 10  # owner's tokens a minute from a network address
WRONG_TOKEN = "This is not the owner's token of this desk.\n"
NO_TOKEN = "This desk has no owner's token: start it with --owner-token or MIXDESK_OWNER_TOKEN.\n"
TOO_MANY = "Too many owner's tokens came from your address: try again in a minute.\n"


class Visitors:
    """ASGI middleware that puts a `Visitor` into each request's scope, and gives browsers their cookies.

    A browser that opens /?owner=TOKEN becomes the owner's, as does one in which an owner signs in. The cookies of the
    owner and of who is signed in are of no use in another browser, and end with the process.
    """

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self.app, self.access = app, access
        self.secret = secrets.token_bytes(32)
        self.attempts = RateLimit(ATTEMPTS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        headers = Headers(scope=scope)
        cookies = cookie_parser(headers.get("cookie", ""))
        browser = cookies.get(BROWSER, "")
        if not BROWSER_ID.fullmatch(browser):
            browser = ""
        # Only a page gives a browser its id: requests of a client without cookies are those of one visitor.
        new = not browser and scope["method"] == "GET" and "text/html" in headers.get("accept", "")
        if new:
            browser = secrets.token_urlsafe(16)
        visitor = Visitor(
            browser=browser,
            address=network_of((scope.get("client") or ("",))[0]),
            owner=not self.access.hosted or self.is_owner(browser, cookies.get(OWNER, "")),
            account=self.account_of(browser, cookies.get(ACCOUNT, "")),
        )
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        app: ASGIApp = self.app
        if scope["method"] == "GET" and (token := dict(query).get("owner")) is not None:
            rest = urlencode([(name, value) for name, value in query if name != "owner"])
            app = self.log_in(scope, visitor, token, rest)
        if new:
            send = self.with_cookie(scope, send, browser)
        return await app({**scope, KEY: visitor, VISITORS: self}, receive, send)

    def is_owner(self, browser: str, signature: str) -> bool:
        """Return whether a browser's owner cookie is one that this process made."""
        return bool(browser) and hmac.compare_digest(signature.encode(), self.sign(browser).encode())

    def sign(self, browser: str) -> str:
        """Return the owner cookie of a browser."""
        return hmac.digest(self.secret, f"owner {browser}".encode(), "sha256").hex()

    def log_in(self, scope: Scope, visitor: Visitor, token: str, rest: str) -> Response:
        """Return the answer to an owner's token: with its cookie, to the same page without the token in its address.

        Args:
            scope: The request.
            visitor: Its sender.
            token: The token.
            rest: The address's other parameters.
        """
        if not self.access.owner_token:
            return PlainTextResponse(NO_TOKEN, 403)
        if not self.attempts.allow(visitor.address):
            return PlainTextResponse(TOO_MANY, 429, headers={"Retry-After": "60"})
        if not visitor.browser or not hmac.compare_digest(token.encode(), self.access.owner_token.encode()):
            return PlainTextResponse(WRONG_TOKEN, 403)
        # Relative, since a proxy may show the desk at another path.
        last = scope["path"].rpartition("/")[2]
        answer = RedirectResponse(
            f"./{last}" + (f"?{rest}" if rest else ""), 303, headers={"Cache-Control": "no-store"}
        )
        self.make_owner({**scope, KEY: visitor}, answer)
        return answer

    def make_owner(self, scope: Scope, answer: Response) -> None:
        """Give a browser the owner's cookie with the answer to its request."""
        set_own_cookie(scope, answer, OWNER, self.sign(visitor_of_scope(scope).browser))

    def remember(self, scope: Scope, answer: Response, account: Account) -> None:
        """Give a browser the cookie of who is signed in, for eight hours, with the answer to its request."""
        value = self._accounts(visitor_of_scope(scope).browser).dumps([account.key, account.name])
        set_own_cookie(scope, answer, ACCOUNT, str(value), SIGNED_IN_FOR)

    def forget(self, answer: Response) -> None:
        """Take a browser's cookies of the owner and of who is signed in."""
        for name in (OWNER, ACCOUNT):
            answer.delete_cookie(name, path="/", httponly=True, samesite="strict")

    def account_of(self, browser: str, value: str) -> Account | None:
        """Return who is signed in by a browser's cookie, if this process made it for this browser."""
        if not browser or not value:
            return None
        try:
            key, name = self._accounts(browser).loads(value, max_age=SIGNED_IN_FOR)
        except BadSignature:
            return None
        return Account(key, name)

    def _accounts(self, browser: str) -> URLSafeTimedSerializer:
        return URLSafeTimedSerializer(self.secret, salt=f"account {browser}".encode())

    def with_cookie(self, scope: Scope, send: Send, browser: str) -> Send:
        """Return a `send` that adds the browser's cookie to the answer."""
        cookie = f"{BROWSER}={browser}; Path=/; HttpOnly; Max-Age={YEAR}; SameSite=Lax"
        if scope.get("scheme") == "https":
            # In a frame of another site, as on Hugging Face, a browser sends no others; Origin is checked anyway.
            framed = "SameSite=None; Secure; Partitioned"
            cookie = cookie.replace("SameSite=Lax", framed if self.access.framed_by else "SameSite=Lax; Secure")

        async def send_with_cookie(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(raw=list(message.get("headers", [])))
                headers.append("Set-Cookie", cookie)
                message = {**message, "headers": headers.raw}
            await send(message)

        return send_with_cookie


def visitors_of(scope: Scope) -> Visitors:
    """Return the middleware that a request came through."""
    found = scope[VISITORS]
    assert isinstance(found, Visitors)
    return found


def set_own_cookie(scope: Scope, answer: Response, name: str, value: str, seconds: int | None = None) -> None:
    """Set a cookie that only this site's own pages send, and no script reads; without `seconds`, for this visit."""
    secure = scope.get("scheme") == "https"
    answer.set_cookie(name, value, max_age=seconds, httponly=True, samesite="strict", secure=secure, path="/")
