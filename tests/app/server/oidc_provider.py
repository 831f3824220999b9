"""A small OpenID provider on this machine, strict about what it is asked."""

from __future__ import annotations

import base64
import hashlib
import secrets
import time
from typing import Any
from urllib.parse import urlencode

from joserfc import jwt
from joserfc.jwk import RSAKey
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

CLIENT, SECRET = "mixdesk-client", "correct-client-secret"


class Provider:
    """The provider. `user` is who sits at the browser; the other attributes make it answer wrongly."""

    def __init__(self) -> None:
        self.url = ""  # known when it listens
        self.user = {"sub": "1815", "preferred_username": "ada"}
        self.key = RSAKey.generate_key(2048, {"kid": "one"})
        self.signing = self.key
        self.claims: dict[str, Any] = {}  # in place of the right ones
        self.in_userinfo = False  # whether the user's name is only there
        self.codes: dict[str, dict[str, str]] = {}
        self.tokens: list[str] = []
        self.asked: list[str] = []
        self.app = Starlette(
            routes=[
                Route("/.well-known/openid-configuration", self.describe),
                Route("/authorize", self.authorize),
                Route("/token", self.give, methods=["POST"]),
                Route("/userinfo", self.tell),
                Route("/jwks", self.keys),
            ]
        )

    def describe(self, _: Request) -> Response:
        return JSONResponse(
            {
                "issuer": self.url,
                "authorization_endpoint": f"{self.url}/authorize",
                "token_endpoint": f"{self.url}/token",
                "userinfo_endpoint": f"{self.url}/userinfo",
                "jwks_uri": f"{self.url}/jwks",
                "id_token_signing_alg_values_supported": ["RS256"],
            }
        )

    def authorize(self, request: Request) -> Response:
        query = dict(request.query_params)
        self.asked.append(query["redirect_uri"])
        right = query["client_id"] == CLIENT and query["response_type"] == "code" and query["state"] and query["nonce"]
        if not right or query["code_challenge_method"] != "S256" or "openid" not in query["scope"].split():
            return PlainTextResponse("wrong request", 400)
        code = secrets.token_urlsafe(16)
        self.codes[code] = query
        return RedirectResponse(f"{query['redirect_uri']}?{urlencode({'code': code, 'state': query['state']})}", 302)

    async def give(self, request: Request) -> Response:
        async with request.form() as form:
            given = {name: str(value) for name, value in form.items()}
        basic = "Basic " + base64.b64encode(f"{CLIENT}:{SECRET}".encode()).decode()
        if request.headers.get("authorization") != basic:
            return JSONResponse({"error": "invalid_client"}, 401)
        query = self.codes.pop(given["code"], {})  # once
        challenge = base64.urlsafe_b64encode(hashlib.sha256(given.get("code_verifier", "").encode()).digest())
        if (
            query.get("code_challenge") != challenge.decode().rstrip("=")
            or query["redirect_uri"] != given["redirect_uri"]
        ):
            return JSONResponse({"error": "invalid_grant"}, 400)
        token, now = secrets.token_urlsafe(24), int(time.time())
        self.tokens.append(token)
        claims = {"iss": self.url, "aud": CLIENT, "iat": now, "exp": now + 300, "nonce": query["nonce"]}
        user = {"sub": self.user["sub"]} if self.in_userinfo else self.user
        signed = jwt.encode({"alg": "RS256", "kid": "one"}, {**claims, **user, **self.claims}, self.signing)
        return JSONResponse({"access_token": token, "token_type": "Bearer", "expires_in": 300, "id_token": signed})

    def tell(self, request: Request) -> Response:
        if request.headers.get("authorization", "").removeprefix("Bearer ") not in self.tokens:
            return JSONResponse({"error": "invalid_token"}, 401)
        return JSONResponse(self.user)

    def keys(self, _: Request) -> Response:
        return JSONResponse({"keys": [self.key.as_dict(private=False)]})
