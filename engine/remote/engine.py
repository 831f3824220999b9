"""The engine of another machine, with the interface of one in this process."""

from __future__ import annotations

import hashlib
import json
import logging
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import platformdirs

from engine.bank.collection import SAMPLING, proposals
from engine.bank.storage import BankFile
from engine.config import Config
from engine.files import write_text
from engine.inference.engine import Engine
from engine.inference.request import Request
from engine.inference.request_checks import TokenIds
from engine.inference.sequence import Record
from engine.inference.telemetry import Telemetry
from engine.messages import Prompt
from engine.models.mixture_log_probs import PositionLogProb
from engine.remote.client import EngineClient, EngineError
from engine.remote.description import RemotePolicies, RemoteRewards
from engine.remote.request import RemoteRequest
from engine.remote.wire import prompt_to_json, rewards_from_json, scale_from_json, telemetry_from_json
from engine.reward_kind import Scored
from engine.rewards.missing import Rewards
from engine.rules.mixture import Mixture
from engine.sampling import Sampling

log = logging.getLogger("mixdesk")

WATCH = 2.0  # seconds between two looks at the engine's status
STATUS = 10.0  # seconds in which it must come


class RemoteEngine(Engine):
    """An engine that runs elsewhere as `python -m engine serve`. Thread-safe.

    The models are there; banks, comparisons and ratings stay with this process. While the engine cannot be reached,
    every call raises EngineError; when it is back, calls succeed again. Responses that were being written when it
    was restarted are lost.
    """

    def __init__(self, url: str, key: str = "", report: Callable[[str], None] = log.debug) -> None:
        """Connect to an engine.

        Args:
            url: its address.
            key: one of its API keys, or "".
            report: called with one line on the progress.

        Raises:
            EngineError: it cannot be reached, refuses the key, or is of another version.
            InputError: the address is not valid.
        """
        self.client = EngineClient(url, key)
        report(f"connecting to the engine at {self.client.url}")
        self._misfit = ""  # why an engine that was restarted no longer fits this desk
        self._reachable = True
        self._closed = threading.Event()
        try:
            self.take(report)
        except BaseException:
            self.close()
            raise
        threading.Thread(target=self.watch, name="mixdesk-engine-watch", daemon=True).start()

    def take(self, report: Callable[[str], None]) -> None:
        """Take the engine's configuration, policies, rewards and bank."""
        described = self.client.get("/description").json()
        self._status = self.read_status()
        self._fingerprint = described["fingerprint"]
        self.config = self._config(described)
        self.policy_set = RemotePolicies(self._call, self._get, described)  # type: ignore[assignment]
        self.reward_set = RemoteRewards(  # type: ignore[assignment]
            self.config.rewards, described["objectives"], scale_from_json(self._status["scale"])
        )
        report("fetching its bank")
        self._fetch_bank()

    def _config(self, described: Mapping[str, Any]) -> Config:
        """Return the configuration, with its prompts in this user's cache."""
        config = Config.model_validate(described["config"])
        key = hashlib.sha256(json.dumps([self.client.url, described["fingerprint"]]).encode()).hexdigest()[:16]
        folder = platformdirs.user_cache_path("mixdesk") / "remote" / key
        config.place(folder / f"{config.name}.yaml", described["fingerprint"])
        # For the menu, which shows a configuration's name.
        write_text(config.file, json.dumps({"name": config.name, "engine": self.client.url}) + "\n")
        if config.prompts:
            file = folder / Path(config.prompts).name
            write_text(file, self.client.get("/prompts").text)
            config.prompts = str(file)
        return config

    def _fetch_bank(self) -> None:
        """Write the engine's bank to where this process looks for it, unless there is one already."""
        file = BankFile(self.config, SAMPLING, proposals(self))
        if not file.path.exists() and (text := self.client.get("/bank").text):
            write_text(file.path, text)

    def watch(self) -> None:
        """Read the engine's status again and again, until this is closed."""
        while not self._closed.wait(WATCH):
            try:
                status = self.read_status()
                if status["instance"] != self._status["instance"]:
                    self._check_fit(self.client.get("/description").json())
                self._status = status
                if not self._reachable:
                    log.warning("the engine at %s is back", self.client.url)
                self._reachable = True
            except EngineError as error:
                if self._reachable:
                    log.warning("%s", error)
                self._reachable = False
            except Exception:
                log.exception("the engine's status could not be read")

    def read_status(self) -> dict[str, Any]:
        """Ask the engine what it is doing. Raises EngineError."""
        status = self.client.get("/status", timeout=STATUS).json()
        return {**status, "telemetry": [status["telemetry"]]}

    def _check_fit(self, described: Mapping[str, Any]) -> None:
        """Note whether an engine that was restarted has other policies than this desk was built for."""
        same = described["fingerprint"] == self._fingerprint
        self._misfit = (
            ""
            if same
            else (
                f"the engine at {self.client.url} was restarted with other policies, '{described['config']['name']}'; "
                "restart this desk"
            )
        )

    def _check_open(self) -> None:
        if self._closed.is_set():
            raise RuntimeError("the engine is closed")
        if self._misfit:
            raise EngineError(self._misfit)

    def _call(self, name: str, **body: Any) -> Any:
        self._check_open()
        with self.connected() as (client, _):
            return client.call(name, **body)

    def _get(self, path: str) -> bytes:
        self._check_open()
        with self.connected() as (client, _):
            return client.get(path).content

    @contextmanager
    def connected(self) -> Iterator[tuple[EngineClient, Callable[[list[Request]], None]]]:
        """Yield the client of the engine for a call, and a function that is given the responses which it began."""
        yield self.client, lambda requests: None

    # ---------------------------------------- status, as last reported

    @property
    def telemetry(self) -> Telemetry:  # type: ignore[override]
        """What the engine has done since it started; `alive` is false while it cannot be reached."""
        telemetry = telemetry_from_json(self._status["telemetry"])
        telemetry.alive = telemetry.alive and self._reachable and not self._closed.is_set()
        return telemetry

    @property
    def max_rows(self) -> int:
        """The largest number of rows that are decoded together."""
        return self._status["max_rows"]

    @property
    def rows(self) -> int:
        """The number of rows that are being decoded, as last reported."""
        return self._status["rows"]

    @property
    def busy(self) -> bool:
        """Whether the engine was at work when it last reported."""
        return self._status["busy"] and self._reachable

    @property
    def waiting(self) -> int:
        """The number of requests that wait to be admitted, as last reported."""
        return self._status["waiting"]

    @property
    def restarts(self) -> int:
        """The number of times that the engine's worker has recovered from an error, as last reported."""
        return self._status["restarts"]

    # ---------------------------------------- responses

    def submit(
        self,
        prompt: Prompt,
        mixture: Mixture,
        sampling: Sampling | None = None,
        seed: int = 0,
        trace: bool = True,
        rewards: bool = True,
        client: object = None,
        time_limit: float | None = None,
        steered: Mapping[int, Mixture] | None = None,
        record: Record | None = None,
        tokens: TokenIds = (),
        top_logprobs: int = 0,
        date: str = "",
    ) -> Request:
        """Queue a response to a prompt; see `Engine.submit`. Raises InputError, EngineError."""
        sampling = sampling or Sampling()
        one = {
            "mixture": mixture.as_dict(),
            "sampling": sampling.as_dict(),
            "seed": seed,
            "trace": trace,
            "rewards": rewards,
            "tokens": [int(token) for token in tokens],
            "date": date,
            "steered": {place: other.as_dict() for place, other in (steered or {}).items()},
            "record": record_to_ask(record),
        }
        (request,) = self._submit(prompt, [one], client, time_limit, top_logprobs, [(mixture, sampling, record)])
        return request

    def submit_all(
        self,
        prompt: Prompt,
        mixtures: list[Mixture],
        sampling: Sampling | list[Sampling],
        seeds: list[int],
        client: object = None,
        time_limit: float | None = None,
        top_logprobs: int = 0,
        trace: bool = True,
        rewards: bool = True,
    ) -> list[Request]:
        """Queue several responses to one prompt; see `Engine.submit_all`. Raises InputError, EngineError."""
        samplings = sampling if isinstance(sampling, list) else [sampling] * len(mixtures)
        plain = {"trace": trace, "rewards": rewards, "tokens": [], "date": "", "steered": {}, "record": None}
        responses = [
            {"mixture": mixture.as_dict(), "sampling": one.as_dict(), "seed": seed, **plain}
            for mixture, one, seed in zip(mixtures, samplings, seeds, strict=True)
        ]
        parts: list[tuple[Mixture, Sampling, Record | None]] = [
            (mixture, one, None) for mixture, one in zip(mixtures, samplings, strict=True)
        ]
        return self._submit(prompt, responses, client, time_limit, top_logprobs, parts)

    def _submit(
        self,
        prompt: Prompt,
        responses: list[dict[str, Any]],
        client: object,
        time_limit: float | None,
        top_logprobs: int,
        parts: list[tuple[Mixture, Sampling, Record | None]],
    ) -> list[Request]:
        self._check_open()
        body = {
            "prompt": prompt_to_json(prompt),
            "responses": responses,
            "client": client_to_json(client),
            "time_limit": time_limit,
            "top_logprobs": top_logprobs,
        }
        with self.connected() as (engine, began):
            ids = engine.post("/responses", body).json()["ids"]
            requests: list[Request] = [
                RemoteRequest(engine, id, *part[:2], self.mixture, part[2]) for id, part in zip(ids, parts, strict=True)
            ]
            began(requests)
        return requests

    # ---------------------------------------- other calls

    def token_log_probs(self, prompt: Prompt, response: str | list[int], date: str = "") -> dict[str, list[float]]:
        """Return {policy or "reference": log-probs of the response's tokens}; see `Engine.token_log_probs`."""
        return self._call("token_log_probs", prompt=prompt_to_json(prompt), response=response, date=date)

    def mixture_log_probs(self, tokens: Sequence[int], mixture: Mixture, top: int = 0) -> list[PositionLogProb]:
        """Return the log-prob of each token under a mixture; see `Engine.mixture_log_probs`."""
        found = self._call("mixture_log_probs", tokens=list(tokens), mixture=mixture.as_dict(), top=top)
        return [PositionLogProb(one["log_prob"], [(id, value) for id, value in one["top"]]) for one in found]

    def tokenize(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """Return the token ids of a text; see `Engine.tokenize`."""
        return self._call("tokenize", text=text, special=add_special_tokens)

    def detokenize(self, ids: Sequence[int]) -> str:
        """Return the text of token ids; see `Engine.detokenize`."""
        return self._call("detokenize", tokens=list(ids))

    def prompt_warning(self, prompt: Prompt) -> str:
        """Return a one-line warning for an unfamiliar prompt, otherwise ""; see `Engine.prompt_warning`."""
        return self._call("warning", prompt=prompt_to_json(prompt))

    def rewards(self, items: list[Scored], objectives: Collection[str] | None = None) -> list[Rewards]:
        """Return {objective: reward} for every item; see `Engine.rewards`."""
        asked = [[prompt_to_json(prompt), text, tokens] for prompt, text, tokens in items]
        names = None if objectives is None else list(objectives)
        return [rewards_from_json(one) for one in self._call("rewards", items=asked, objectives=names)]

    def check_prompt(self, prompt: Prompt, room: int, whose: str = "new", date: str = "") -> dict[str, list[int]]:
        """Return {policy: token ids of the prompt}, once checked; see `Engine.check_prompt`."""
        return self._call("check", prompt=prompt_to_json(prompt), room=room, whose=whose, date=date)

    def close(self) -> None:
        """Close the connections; the engine itself runs on."""
        if not self._closed.is_set():
            self._closed.set()
            self.client.close()

    def release(self) -> None:
        """Close the connections."""
        self.close()


def record_to_ask(record: Record | None) -> dict[str, Any] | None:
    """Return what is to be recorded beside a response, for JSON."""
    if record is None:
        return None
    mixtures = {name: mixture.as_dict() for name, mixture in record.mixtures.items()}
    return {"mixtures": mixtures, "steps": record.steps is not None}


def client_to_json(client: object) -> Any:
    """Return a client of the queue for JSON: equal clients give equal values, and others different ones."""
    if client is None:
        return None
    if isinstance(client, tuple):
        return [str(part) for part in client]
    return client if isinstance(client, str) else f"{type(client).__name__} {id(client)}"
