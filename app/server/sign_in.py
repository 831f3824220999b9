"""Signing in with Hugging Face, or another OpenID provider: at /login/huggingface, back at /login/callback.

Somebody who signs in as one of the owners becomes the owner, as by the owner's token. Somebody who came from a study's
page joins the study. What the provider tells is not kept, except for the user's id and name in a cookie of the browser.
"""

from __future__ import annotations

import importlib
import logging
import secrets
from collections.abc import Callable
from html import escape
from importlib.util import find_spec
from typing import Any
from urllib.parse import unquote, urlsplit

from authlib.common.errors import AuthlibBaseError
from authlib.integrations.starlette_client import OAuth
from joserfc.errors import JoseError
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from app.server.sign_in_options import SignInOptions
from app.server.visitors import visitors_of
from app.services.rate_limit import RateLimit
from app.services.visitor import Account, visitor_of_scope
from engine import InputError

log = logging.getLogger("mixdesk")
HTTP_ERROR = importlib.import_module("httpx2" if find_spec("httpx2") else "httpx").HTTPError  # as authlib chooses

SESSION = "mixdesk_sign_in"  # the cookie of what is under way
SIGN_IN_TIME = 600  # seconds until somebody must be back from the provider
TIMEOUT = 10.0  # seconds for each request to the provider
ATTEMPTS = 30  # a minute from a network address
LONGEST_PATH = 2000  # characters of the page to return to
ANNOTATE = "/annotate/"

NO_COOKIES = "Signing in needs cookies: allow them for this site, and try again.\n"
TOO_MANY_SIGN_INS = "Too many attempts to sign in came from your address: try again in a minute.\n"
NO_PATH = "next: give a path of this site, such as /annotate/ and a study.\n"
OUT_OF_REACH = "The provider of the sign-in is out of reach: try again later.\n"
STRANGE_ANSWER = "The provider of the sign-in gave an answer that cannot be used: try again later.\n"
NOT_BEGUN = "This sign-in was not begun in this browser, or too long ago: go back to the page and sign in again.\n"
NOT_SIGNED_IN = "You are not signed in: the provider refused it, or you did. Go back to the page to try again.\n"
# As somebody comes from the provider's site, a browser withholds cookies from a redirect, but not from a page of ours.
SIGNED_IN = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta http-equiv="refresh" content="0;url={url}"><title>Signed in</title></head>
<body><p>You are signed in as {name}. <a href="{url}">Go on</a></p></body></html>
"""
SIGN_OUT = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Sign out</title></head>
<body><form method="post" action="logout"><button>Sign out</button></form></body></html>
"""
# Takes (request, answer, study's id, account), and lets the person join that study by cookies of the answer.
Join = Callable[[Request, Response, str, Account], None]


class SignIn:
    """The routes of signing in and out."""

    def __init__(self, options: SignInOptions, root: str = "", join: Join | None = None) -> None:
        """Describe the provider, which is not asked for anything yet.

        Args:
            options: The options.
            root: Public path or URL of the site behind a proxy.
            join: Lets somebody join a study.
        """
        self.options, self.join, self.attempts = options, join, RateLimit(ATTEMPTS)
        self.root_url, self.root = root.rstrip("/") if urlsplit(root).netloc else "", urlsplit(root).path.rstrip("/")
        self.provider = OAuth().register(
            "huggingface",
            client_id=options.client_id,
            client_secret=options.client_secret,
            server_metadata_url=f"{options.provider}/.well-known/openid-configuration",
            client_kwargs={
                "scope": " ".join(options.scopes),
                "code_challenge_method": "S256",
                "timeout": TIMEOUT,
            },
        )

    def routes(self) -> list[Route]:
        """Return the routes, for the site's own application."""
        session = [Middleware(SignInSession)]
        return [
            Route("/login", self.show),
            Route("/login/huggingface", self.begin, middleware=session),
            Route("/login/callback", self.finish, middleware=session),
            Route("/logout", self.offer_end, methods=["GET"]),
            Route("/logout", self.end, methods=["POST"]),
        ]

    async def show(self, request: Request) -> Response:
        """Return who is signed in, and whether this is the owner, as JSON."""
        visitor = visitor_of_scope(request.scope)
        name = visitor.account.name if visitor.account else None
        return JSONResponse({"name": name, "owner": visitor.owner}, headers={"Cache-Control": "no-store"})

    async def begin(self, request: Request) -> Response:
        """Send a browser to the provider; `next` is the path of the page to return to."""
        if refused := self.refused(request):
            return refused
        path = self.own_path(request.query_params.get("next", "/"))
        if path is None:
            return refusal(NO_PATH, 400)
        try:
            answer: Response = await self.provider.authorize_redirect(request, self.callback_url(request))
        except Exception as error:
            return failure(error)
        request.session["next"] = path
        answer.headers["Cache-Control"] = "no-store"
        return answer

    async def finish(self, request: Request) -> Response:
        """Take the provider's answer: check it, and sign its user in."""
        if refused := self.refused(request):
            return refused
        path = self.own_path(str(request.session.get("next", "/"))) or "/"
        try:
            account = await self.account_of(request)
        except Exception as error:
            return failure(error)
        finally:
            request.session.clear()
        url = escape(f"..{path}")  # relative, since a proxy may show the site at another path
        page = SIGNED_IN.format(url=url, name=escape(account.name))
        answer = HTMLResponse(page, headers={"Cache-Control": "no-store"})
        visitors = visitors_of(request.scope)
        visitors.remember(request.scope, answer, account)
        if account.name in self.options.owners:
            visitors.make_owner(request.scope, answer)
        study = urlsplit(path).path.removeprefix(ANNOTATE)
        if self.join and path.startswith(ANNOTATE) and study and "/" not in study:
            try:
                await run_in_threadpool(self.join, request, answer, study, account)
            except InputError as error:
                return refusal(f"{error}\n", 403)
        return answer

    async def offer_end(self, _: Request) -> Response:
        """Return a page with a button that signs out."""
        return HTMLResponse(SIGN_OUT, headers={"Cache-Control": "no-store"})

    async def end(self, request: Request) -> Response:
        """Sign out: the browser is no longer the owner's either."""
        answer = RedirectResponse("./", 303, headers={"Cache-Control": "no-store"})
        visitors_of(request.scope).forget(answer)
        return answer

    def refused(self, request: Request) -> Response | None:
        """Return why somebody cannot sign in now: too many attempts from their address, or no cookies; else None."""
        visitor = visitor_of_scope(request.scope)
        if not self.attempts.allow(visitor.address):
            return refusal(TOO_MANY_SIGN_INS, 429)
        return None if visitor.browser else refusal(NO_COOKIES, 400)

    async def account_of(self, request: Request) -> Account:
        """Return the account that the provider's answer is about. Raises what authlib, joserfc and httpx raise."""
        issuer = (await self.provider.load_server_metadata()).get("issuer")
        claims = {
            "iss": {"essential": True, "values": [issuer]},
            "aud": {"essential": True, "values": [self.options.client_id]},
            "sub": {"essential": True},
        }
        token: dict[str, Any] = await self.provider.authorize_access_token(request, claims_options=claims)
        user = token.get("userinfo")
        if not user:
            raise ValueError("no id_token")
        name = user.get("preferred_username")
        if not name:
            told = await self.provider.userinfo(token=token)
            if told.get("sub") != user["sub"]:
                raise ValueError("userinfo of another user")
            name = told.get("preferred_username")
        if not isinstance(name, str) or not name or not isinstance(user["sub"], str):
            raise ValueError("no user name")
        return Account(f"hf:{user['sub']}"[:200], name[:100])

    def callback_url(self, request: Request) -> str:
        """Return the address at which the provider's answer arrives."""
        if self.options.host:
            return f"https://{self.options.host}{self.root}/login/callback"
        if self.root_url:
            return f"{self.root_url}/login/callback"
        headers = request.headers  # checked by app/server/allowed_hosts.py
        host = headers.get("x-forwarded-host") or headers.get("host", "")
        return f"{request.scope['scheme']}://{host}{self.root}/login/callback"

    def own_path(self, path: str) -> str | None:
        """Return a path of this site without the proxy's, as it is returned to; None if it leads elsewhere."""
        if len(path) > LONGEST_PATH or not path.isascii() or not path.isprintable() or "\\" in path or " " in path:
            return None
        if self.root and (path == self.root or path.startswith(f"{self.root}/")):
            path = path[len(self.root) :] or "/"
        parts = urlsplit(path)
        if parts.scheme or parts.netloc or not path.startswith("/") or path.startswith("//") or parts.fragment:
            return None
        steps = unquote(parts.path).split("/")
        return None if {".", ".."} & set(steps) or "\\" in unquote(path) or steps[1] in ("login", "logout") else path


class SignInSession:
    """ASGI middleware with the session of a sign-in under way: a signed cookie for ten minutes, secure over HTTPS.

    It is sent when a browser comes back from the provider, which is another site: SameSite=Lax.
    """

    secret = secrets.token_hex(32)  # a sign-in that is under way ends with the process

    def __init__(self, app: ASGIApp) -> None:
        self.apps = {
            secure: SessionMiddleware(
                app, self.secret, SESSION, max_age=SIGN_IN_TIME, same_site="lax", https_only=secure
            )
            for secure in (False, True)
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.apps[scope.get("scheme") == "https"](scope, receive, send)


def refusal(words: str, status: int) -> Response:
    """Return one line of text as the answer, which is not cached."""
    return PlainTextResponse(words, status, headers={"Cache-Control": "no-store"})


def failure(error: Exception) -> Response:
    """Return the answer to an error of authlib, joserfc or httpx, which is logged without what is secret.

    Raises:
        Exception: the error, if it is of another kind.
    """
    kind = getattr(error, "error", None) if isinstance(error, (AuthlibBaseError, JoseError)) else None
    if kind == "mismatching_state":
        return refusal(NOT_BEGUN, 403)
    if kind == "access_denied":
        return refusal(NOT_SIGNED_IN, 403)
    # Messages may quote a token: only the kind of the error is logged.
    log.warning("signing in failed: %s", kind or type(error).__name__)
    if isinstance(error, HTTP_ERROR):
        return refusal(OUT_OF_REACH, 502)
    if isinstance(error, JoseError):
        return refusal(STRANGE_ANSWER, 403)
    if isinstance(error, AuthlibBaseError):
        return refusal(NOT_SIGNED_IN, 403)
    if isinstance(error, (ValueError, KeyError, RuntimeError)):
        return refusal(STRANGE_ANSWER, 502)
    raise error
