"""The routes of an engine that serves desks on other machines."""

from __future__ import annotations

import asyncio
import io
import json
import os
import secrets
import tempfile
import zipfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from engine.bank.collection import SAMPLING, proposals
from engine.bank.storage import BankFile, line_of
from engine.config import REFERENCE
from engine.errors import InputError
from engine.inference.engine import Engine
from engine.inference.sequence import Record
from engine.models.config_fingerprint import config_fingerprint
from engine.remote.responses import RemoteResponses
from engine.remote.wire import (
    PROTOCOL,
    ROOT,
    VERSION_HEADER,
    empty_record,
    prompt_from_json,
    rewards_to_json,
    scale_to_json,
    telemetry_to_json,
)
from engine.rules.mixture import Mixture
from engine.rules.registry import RULES
from engine.sampling import Sampling

SWEEP = 5.0  # seconds
Handler = Callable[[HttpRequest], Awaitable[Response]]
Refusal = Callable[[HttpRequest], "Response | None"]


class EngineRoutes:
    """Handlers of the routes under `ROOT`. Bodies are JSON; invalid input is answered with 422 and {"error": line}."""

    def __init__(self, engine: Engine, refuse: Refusal = lambda _: None) -> None:
        """Make the handlers.

        Args:
            engine: the engine.
            refuse: a function that returns the answer to a request that is not allowed, else None.
        """
        self.engine, self.refuse = engine, refuse
        self.instance = secrets.token_hex(8)  # another one after a restart: its responses are lost
        self.responses = RemoteResponses()
        self._sweeping: asyncio.Task[None] | None = None

    def routes(self) -> list[Route]:
        """Return the routes."""
        calls: dict[str, Callable[[Any], Any]] = {
            "check": self.check,
            "warning": self.warn,
            "rewards": self.score,
            "token_log_probs": self.token_log_probs,
            "mixture_log_probs": self.mixture_log_probs,
            "tokenize": lambda body: self.engine.tokenize(body["text"], body["special"]),
            "detokenize": lambda body: self.engine.detokenize(body["tokens"]),
            "spell": lambda body: self.engine.policy_set.spell(body["tokens"]),
        }
        return [
            Route(f"{ROOT}/description", self.guarded(self.describe)),
            Route(f"{ROOT}/status", self.guarded(self.status)),
            Route(f"{ROOT}/prompts", self.guarded(self.prompts)),
            Route(f"{ROOT}/bank", self.guarded(self.bank)),
            Route(f"{ROOT}/tokenizer", self.guarded(self.tokenizer)),
            Route(f"{ROOT}/responses", self.guarded(self.submit), methods=["POST"]),
            Route(f"{ROOT}/responses/{{id}}/events", self.guarded(self.events)),
            Route(f"{ROOT}/responses/{{id}}/steer", self.guarded(self.steer), methods=["POST"]),
            Route(f"{ROOT}/responses/{{id}}", self.guarded(self.cancel), methods=["DELETE"]),
            *(
                Route(f"{ROOT}/{name}", self.guarded(self.called(call)), methods=["POST"])
                for name, call in calls.items()
            ),
        ]

    def guarded(self, handler: Handler) -> Handler:
        """Return a handler that first checks the caller and its version, and answers invalid input with one line."""

        async def answer(request: HttpRequest) -> Response:
            if (refusal := self.refuse(request)) is not None:
                return refusal
            if (version := request.headers.get(VERSION_HEADER, "")) != str(PROTOCOL):
                said = f"this engine speaks version {PROTOCOL} of the protocol and the caller {version or 'none'}"
                return error_response(f"{said}; install the same version of mixdesk on both machines", 409)
            if self._sweeping is None:
                self._sweeping = asyncio.create_task(self._sweep())
            try:
                return await handler(request)
            except InputError as error:
                return error_response(str(error), 422)
            except (KeyError, TypeError, ValueError) as error:
                return error_response(f"request: not as the protocol has it ({type(error).__name__}: {error})", 400)
            except RuntimeError as error:  # closed
                return error_response(str(error), 503)

        return answer

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP)
            self.responses.sweep()

    # ---------------------------------------- what the engine is

    async def describe(self, _: HttpRequest) -> Response:
        """Return what does not change while the engine runs."""
        return JSONResponse(await asyncio.to_thread(self.description))

    def description(self) -> dict[str, Any]:
        """Return the configuration, the policies and the rewards."""
        engine, policy_set = self.engine, self.engine.policy_set
        config = engine.config.model_dump(mode="json")
        policies = [
            {"name": policy.name, "objective": policy.objective, "model": policy.model, "note": policy.note}
            for policy in policy_set.policies
        ]
        return {
            "instance": self.instance,
            "config": {**config, "prompts": config["prompts"] and Path(config["prompts"]).name},
            "file": str(engine.config.file),
            "fingerprint": config_fingerprint(engine.config),
            "policies": policies,
            "context": policy_set.context,
            "stop_ids": sorted(policy_set.stop_ids),
            "dated": bool(policy_set.now()),
            "notes": engine.notes,
            "soup_error": self.soup_error(),
            "objectives": engine.reward_set.objectives,
            "max_rows": engine.max_rows,
            "reference": REFERENCE,
        }

    def soup_error(self) -> str:
        """Return why the adapters cannot be averaged, "" if they can."""
        try:
            for name, rule in RULES.items():
                if rule.averages_adapters:
                    self.engine.mixture(rule=name)
        except InputError as error:
            return str(error)
        return ""

    async def status(self, _: HttpRequest) -> Response:
        """Return what changes."""
        engine = self.engine
        return JSONResponse(
            {
                "instance": self.instance,
                "process": os.getpid(),
                "busy": engine.busy,
                "waiting": engine.waiting,
                "rows": engine.rows,
                "max_rows": engine.max_rows,
                "restarts": engine.restarts,
                "scale": scale_to_json(engine.reward_set.scale),
                "telemetry": telemetry_to_json(engine.telemetry),
            }
        )

    async def prompts(self, _: HttpRequest) -> Response:
        """Return the configuration's file of prompts."""
        file = self.engine.config.prompts
        if file is None:
            return error_response("prompts: the configuration has none", 404)
        return PlainTextResponse(await asyncio.to_thread(Path(file).read_text, "utf-8"))

    async def bank(self, _: HttpRequest) -> Response:
        """Return the responses of the desk's bank that this machine has, as JSON lines."""

        def lines() -> str:
            file = BankFile(self.engine.config, SAMPLING, proposals(self.engine))
            return "".join(f"{line_of(unit, rows)}\n" for unit, rows in file.read().items())

        return PlainTextResponse(await asyncio.to_thread(lines))

    async def tokenizer(self, _: HttpRequest) -> Response:
        """Return the base's tokenizer as a ZIP archive of its files."""

        def archive() -> bytes:
            with tempfile.TemporaryDirectory() as folder:
                self.engine.policy_set.tokenizer.save_pretrained(folder)
                packed = io.BytesIO()
                with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as files:
                    for file in sorted(Path(folder).iterdir()):
                        files.write(file, file.name)
                return packed.getvalue()

        return Response(await asyncio.to_thread(archive), media_type="application/zip")

    # ---------------------------------------- responses

    async def submit(self, request: HttpRequest) -> Response:
        """Queue responses, and return their ids."""
        body = await json_of(request)
        if not self.responses.has_room(len(body["responses"])):
            return error_response("responses: too many are kept here; read or cancel some first", 429)
        submitted = await asyncio.to_thread(self._submit, body)
        return JSONResponse({"ids": [self.responses.add(*each).id for each in submitted]})

    def _submit(self, body: dict[str, Any]) -> list[tuple[Any, Record | None]]:
        prompt, client = prompt_from_json(body["prompt"]), body["client"]
        client = tuple(client) if isinstance(client, list) else client
        mixtures = [self.checked(one["mixture"]) for one in body["responses"]]
        samplings = [Sampling(**one["sampling"]) for one in body["responses"]]
        seeds = [one["seed"] for one in body["responses"]]
        shared = {"client": client, "time_limit": body["time_limit"], "top_logprobs": body["top_logprobs"]}
        if len(mixtures) > 1:
            flags = {name: body["responses"][0][name] for name in ("trace", "rewards")}  # the same of all
            requests = self.engine.submit_all(prompt, mixtures, samplings, seeds, **flags, **shared)
            return [(request, None) for request in requests]
        (one,) = body["responses"]
        record = None
        if (asked := one.get("record")) is not None:
            record = empty_record(asked["mixtures"], asked["steps"])
        steered = {int(place): self.checked(mixture) for place, mixture in one["steered"].items()}
        request = self.engine.submit(
            *(prompt, mixtures[0], samplings[0], seeds[0]),
            trace=one["trace"],
            rewards=one["rewards"],
            tokens=one["tokens"],
            date=one["date"],
            steered=steered,
            record=record,
            **shared,
        )
        return [(request, record)]

    def checked(self, mixture: dict[str, Any]) -> Mixture:
        """Return a mixture as it was sent, once checked. Its weights are normalised already, and stay as they are."""
        self.engine.mixture(**mixture)
        return Mixture(**mixture)

    async def events(self, request: HttpRequest) -> Response:
        """Stream a response's events after the one of the header Last-Event-ID."""
        response = self.responses.find(request.path_params["id"])
        if response is None:
            return error_response("response: it is not here", 404)
        first = int(request.headers.get("last-event-id", "-1")) + 1
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(response.read(first), media_type="text/event-stream", headers=headers)

    async def steer(self, request: HttpRequest) -> Response:
        """Draw the rest of a response from another mixture."""
        response = self.responses.find(request.path_params["id"])
        if response is None:
            return error_response("response: it is not here", 404)
        response.request.steer_to(self.checked(await json_of(request)))
        return JSONResponse({})

    async def cancel(self, request: HttpRequest) -> Response:
        """Stop a response; its events end with what there is."""
        if response := self.responses.find(request.path_params["id"]):
            response.request.cancel()
        return JSONResponse({})

    # ---------------------------------------- calls that return at once

    def called(self, call: Callable[[Any], Any]) -> Handler:
        """Return a handler that runs a call on a thread and returns its result as JSON."""

        async def handle(request: HttpRequest) -> Response:
            body = await json_of(request)
            return JSONResponse({"result": await asyncio.to_thread(call, body)})

        return handle

    def check(self, body: dict[str, Any]) -> dict[str, list[int]]:
        """Return the prompt's token ids by policy."""
        return self.engine.check_prompt(prompt_from_json(body["prompt"]), body["room"], body["whose"], body["date"])

    def warn(self, body: dict[str, Any]) -> str:
        """Return the warning for an unfamiliar prompt, or ""."""
        return self.engine.prompt_warning(prompt_from_json(body["prompt"]))

    def score(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the rewards of responses."""
        items = [(prompt_from_json(prompt), text, tokens) for prompt, text, tokens in body["items"]]
        return [rewards_to_json(rewards) for rewards in self.engine.rewards(items, body["objectives"])]

    def token_log_probs(self, body: dict[str, Any]) -> dict[str, list[float]]:
        """Return the log-probs of a response's tokens by policy."""
        return self.engine.token_log_probs(prompt_from_json(body["prompt"]), body["response"], body["date"])

    def mixture_log_probs(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the log-probs of tokens under a mixture."""
        found = self.engine.mixture_log_probs(body["tokens"], self.checked(body["mixture"]), body["top"])
        return [{"log_prob": one.log_prob, "top": one.top} for one in found]


async def json_of(request: HttpRequest) -> Any:
    """Return a request's body. Raises ValueError if it is not JSON."""
    return json.loads(await request.body())


def error_response(line: str, status: int) -> Response:
    """Return an error as JSON."""
    return JSONResponse({"error": line}, status_code=status)
