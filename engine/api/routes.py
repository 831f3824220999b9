"""The routes of OpenAI's protocol: models, chat completions, completions, and the tokenizer's."""

from __future__ import annotations

import json
import logging
import secrets
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from typing import Any
from weakref import WeakKeyDictionary

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from engine.api.api_error import ApiError, bad_request, failed, unavailable
from engine.api.calls import THREAD, Call, Load, unless_gone
from engine.api.chat import ChatAnswer
from engine.api.chat_fields import ChatFields
from engine.api.completion_fields import CompletionFields, DetokenizeFields, TokenizeFields
from engine.api.completions import CompletionAnswer
from engine.api.event_stream import EventStream
from engine.api.fields import parse_fields
from engine.api.keys import ApiKeys
from engine.api.model_names import Model, find_model, list_models
from engine.api.source import EngineSource
from engine.api.token_texts import TokenTexts
from engine.api.tokenizing import detokenize, tokenize, tokenizer_info
from engine.daemon_thread import on_daemon_thread
from engine.errors import EngineError
from engine.inference.engine import Engine

log = logging.getLogger("mixdesk")
Handler = Callable[[Request, str], Awaitable[Response]]  # takes the request and its caller
MOST = 512  # responses of a caller under way at once
LARGEST = 8_388_608  # bytes of a request's body
NOWHERE = "There is nothing at this address; there are /v1/models, /v1/chat/completions and /v1/completions."
CLIENT_GONE = 499  # nobody reads it


class OpenAiApi:
    """The handlers. Each is given a request whose sender may send it."""

    def __init__(self, source: EngineSource, keys: ApiKeys, most: int) -> None:
        self.source, self.keys, self.load = source, keys, Load(most)
        self.created = int(time.time())
        self._texts: WeakKeyDictionary[Engine, TokenTexts] = WeakKeyDictionary()

    def routes(self) -> list[Route]:
        """Return the routes, with an envelope also for addresses and methods that there are not."""
        gets: dict[str, Handler] = {
            "/v1/models": self.models,
            "/v1/models/{name:path}": self.model,
            "/tokenizer_info": self.tokenizer_info,
        }
        posts: dict[str, Handler] = {
            "/v1/chat/completions": self.chat,
            "/v1/completions": self.complete,
            "/tokenize": self.tokenize,
            "/detokenize": self.detokenize,
        }
        return [
            *(Route(path, self.guarded(handler, "GET")) for path, handler in gets.items()),
            *(Route(path, self.guarded(handler, "POST"), methods=ALL) for path, handler in posts.items()),
            Route("/v1", self.guarded(self.nowhere), methods=ALL),
            Route("/v1/{rest:path}", self.guarded(self.nowhere), methods=ALL),
        ]

    def guarded(self, handler: Handler, method: str = "") -> Callable[[Request], Awaitable[Response]]:
        """Return an endpoint that checks the sender and method, and answers every error in the envelope."""

        async def endpoint(request: Request) -> Response:
            try:
                caller = self.keys.caller(request.scope)
                if method and request.method not in (method, "HEAD" if method == "GET" else method):
                    raise ApiError(405, f"This address takes {method} only.", None, {"Allow": method})
                response = await handler(request, caller)
            except ApiError as error:
                response = error.response()
            except EngineError as error:
                response = unavailable(str(error)).response()
            except ClientDisconnect:
                response = Response(status_code=CLIENT_GONE)
            except Exception:
                log.exception("a request to %s failed", request.url.path)
                response = failed().response()
            response.headers["x-request-id"] = f"req_{secrets.token_hex(12)}"
            response.headers.setdefault("cache-control", "no-store")
            return response

        return endpoint

    # ---------------------------------------- models and tokenizer

    async def models(self, _: Request, __: str) -> Response:
        """List the models that have a name."""
        found = [model.described(self.created) for model in list_models(self.source)]
        return JSONResponse({"object": "list", "data": found})

    async def model(self, request: Request, _: str) -> Response:
        """Describe one model, also a mixture that is written out."""
        return JSONResponse(find_model(self.source, request.path_params["name"]).described(self.created))

    async def tokenizer_info(self, request: Request, _: str) -> Response:
        """Describe the tokenizer of a model, the default configuration's if none is named."""
        return JSONResponse(tokenizer_info(self.engine_of(request.query_params.get("model"))))

    async def tokenize(self, request: Request, _: str) -> Response:
        """Return the token ids of a text."""
        fields = parse_fields(TokenizeFields, await read_body(request))
        engine = self.engine_of(fields.model)
        return JSONResponse(await on_daemon_thread(lambda: tokenize(engine, fields), THREAD))

    async def detokenize(self, request: Request, _: str) -> Response:
        """Return the text of token ids."""
        fields = parse_fields(DetokenizeFields, await read_body(request))
        engine = self.engine_of(fields.model)
        return JSONResponse(await on_daemon_thread(lambda: detokenize(engine, fields), THREAD))

    async def nowhere(self, _: Request, __: str) -> Response:
        """Refuse an address."""
        raise ApiError(404, NOWHERE, "unknown_url")

    def engine_of(self, model: str | None) -> Engine:
        """Return the engine of a model, the default one if none is named. Raises ApiError."""
        if model is not None:
            return find_model(self.source, model).engine
        engines = self.source.engines()
        if not engines:
            raise unavailable("No configuration is loaded; try again in a few seconds.")
        return next(iter(engines.values()))

    # ---------------------------------------- text

    async def chat(self, request: Request, caller: str) -> Response:
        """Answer a conversation."""
        fields = parse_fields(ChatFields, await read_body(request))
        fields.check()
        model = find_model(self.source, fields.model)
        call = self.call(model, fields, caller)
        return await self.answer(request, caller, ChatAnswer(fields, call, self.texts_of(model.engine)), fields.n or 1)

    async def complete(self, request: Request, caller: str) -> Response:
        """Continue texts or token ids."""
        fields = parse_fields(CompletionFields, await read_body(request))
        fields.check()
        model = find_model(self.source, fields.model)
        call = self.call(model, fields, caller)
        count = len(fields.prompt) * (fields.n or 1)
        return await self.answer(request, caller, CompletionAnswer(fields, call, self.texts_of(model.engine)), count)

    def call(self, model: Model, fields: ChatFields | CompletionFields, caller: str) -> Call:
        """Return the call of a request. In the queue it takes its turns among its caller's others. Raises ApiError."""
        return Call(model.engine, model.mixed(fields.mixdesk), (caller, object()))

    async def answer(
        self, request: Request, caller: str, answer: ChatAnswer | CompletionAnswer, count: int
    ) -> Response:
        """Queue the responses of a request, and return them as a stream or together."""
        with ExitStack() as held:
            held.enter_context(self.load.counted(caller, count))
            call = answer.call
            try:
                if answer.fields.stream:
                    await on_daemon_thread(answer.start, THREAD)
                    return EventStream(call, answer, held.pop_all())

                def work() -> dict[str, Any]:
                    answer.start()
                    return answer.whole()

                whole = await unless_gone(call, work, request.receive)
            except BaseException:
                call.cancel()
                raise
            return Response(status_code=CLIENT_GONE) if whole is None else JSONResponse(whole)

    def texts_of(self, engine: Engine) -> TokenTexts:
        """Return the texts of an engine's tokens."""
        if engine not in self._texts:
            self._texts[engine] = TokenTexts(engine.policy_set.tokenizer)
        return self._texts[engine]


ALL = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


def api_routes(source: EngineSource, keys: ApiKeys, most: int = MOST) -> list[Route]:
    """Return the routes of OpenAI's protocol.

    Args:
        source: the engines and saved mixtures.
        keys: who may send requests.
        most: responses of one caller that may be under way at once; more are refused with 429.
    """
    return OpenAiApi(source, keys, most).routes()


async def read_body(request: Request) -> dict[str, Any]:
    """Return the JSON object of a request's body. Raises ApiError."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > LARGEST:
            raise ApiError(413, f"The body is larger than {LARGEST:,} bytes; send several requests.", None, CLOSE)
    try:
        value = json.loads(bytes(body), parse_constant=refuse_constant)
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise bad_request("The body has half a character (a lone surrogate); send it again without.") from None
    except (ValueError, RecursionError) as error:
        raise bad_request(f"The body is not JSON that can be read: {str(error)[:100]}.") from None
    if not isinstance(value, dict):
        raise bad_request("The body is not a JSON object; send one.")
    return value


CLOSE = {"Connection": "close"}


def refuse_constant(name: str) -> Any:
    """Raise ValueError: Infinity and NaN are not JSON."""
    raise ValueError(f"it has {name}")
