"""HTTP calls to an engine on another machine."""

from __future__ import annotations

import json
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx

from engine.errors import EngineError, InputError, one_line
from engine.remote.wire import PING, PROTOCOL, ROOT, VERSION_HEADER

log = logging.getLogger("mixdesk")

CONNECT = 5.0  # seconds to connect
ANSWER = 120.0  # seconds to answer a call: many rewards, or a long prompt behind others
SILENCE = 2.5 * PING  # seconds without an event, or the comment that stands in for one, after which a stream is dead
PAUSE = 0.2  # seconds between two tries, at first
# Of a client that was closed meanwhile httpx raises the last.
ERRORS = (httpx.HTTPError, RuntimeError)


class EngineClient:
    """Calls to one engine. Thread-safe.

    Attributes:
        url: the engine's address.
        patience: seconds in which a stream that broke off is opened again.
    """

    patience = 10.0

    def __init__(self, url: str, key: str = "") -> None:
        """Make a client without connecting.

        Args:
            url: the address of `python -m engine serve`, such as http://gpu-box:8000.
            key: one of the engine's API keys, or "".

        Raises:
            InputError: the address is not one of http or https.
        """
        try:
            parts = urlsplit(url)
            valid = (
                parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
            )
        except ValueError:
            valid = False
        if not valid:
            raise InputError(f"--engine: found '{url[:200]}'; give an address such as http://gpu-box:8000")
        self.url = url.rstrip("/").removesuffix("/v1")
        headers = {VERSION_HEADER: str(PROTOCOL), **({"Authorization": f"Bearer {key}"} if key else {})}
        # Each response that is under way has a connection. The environment's proxies are for other addresses.
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=32)
        timeout = httpx.Timeout(ANSWER, connect=CONNECT)
        self._http = httpx.Client(base_url=f"{self.url}{ROOT}", headers=headers, limits=limits, timeout=timeout)
        self._posts: queue.SimpleQueue[Callable[[], Any] | None] = queue.SimpleQueue()
        self._poster = threading.Thread(target=self._send_posts, name="mixdesk-engine-client", daemon=True)
        self._poster.start()

    def get(self, path: str, timeout: float = ANSWER) -> httpx.Response:
        """Return the answer to a GET request. Raises EngineError or InputError."""
        return self._answer(lambda: self._http.get(path, timeout=httpx.Timeout(timeout, connect=CONNECT)))

    def call(self, name: str, **body: Any) -> Any:
        """Return the result of a call. Raises EngineError or InputError."""
        return self.post(f"/{name}", body).json()["result"]

    def post(self, path: str, body: Any) -> httpx.Response:
        """Return the answer to a POST request with a JSON body. Raises EngineError or InputError."""
        return self._answer(lambda: self._http.post(path, json=body))

    def post_later(self, path: str, body: Any) -> None:
        """Send a POST request without waiting for it, after those of earlier calls; a failure is logged."""
        self._posts.put(lambda: self.post(path, body))

    def delete_later(self, path: str) -> None:
        """Send a DELETE request without waiting for it; a failure is logged."""
        self._posts.put(lambda: self._answer(lambda: self._http.delete(path)))

    def _send_posts(self) -> None:
        while (send := self._posts.get()) is not None:
            try:
                send()
            except InputError as error:
                log.warning("%s", error)
            except Exception:
                log.exception("a request to the engine failed")

    def _answer(self, send: Callable[[], httpx.Response]) -> httpx.Response:
        try:
            answer = send()
        except httpx.TimeoutException:
            raise EngineError(f"the engine at {self.url} does not answer; see whether it is busy or stuck") from None
        except ERRORS as error:
            raise self.unreachable(error) from None
        self.check(answer)
        return answer

    def unreachable(self, error: BaseException) -> EngineError:
        """Return the error for an engine that cannot be reached."""
        why = one_line(error, 100)
        return EngineError(
            f"the engine at {self.url} cannot be reached ({why}); start it with python -m engine serve, or check its "
            "address"
        )

    def check(self, answer: httpx.Response) -> None:
        """Raise an error if an answer is not a success: InputError for a caller's mistake, else EngineError."""
        if answer.is_success:
            return
        try:
            said = answer.json()["error"]
            said = said["message"] if isinstance(said, dict) else str(said)
        except (ValueError, KeyError, TypeError):
            said = ""
        if answer.status_code in (422, 429) and said:
            raise InputError(said)
        if answer.status_code in (401, 403):
            raise EngineError(
                f"the engine at {self.url} refuses the key; give one of its API keys in MIXDESK_ENGINE_KEY"
            )
        if answer.status_code == 404 and not said:
            raise EngineError(f"there is no engine at {self.url}: no answer at {ROOT}; check the address")
        raise EngineError(f"the engine at {self.url} says: {said or f'status {answer.status_code}'}")

    def events(self, path: str, wanted: Callable[[], bool]) -> Iterator[dict[str, Any]]:
        """Yield the events of a stream until the caller leaves it; a stream that breaks off is opened again.

        Args:
            path: the path of the stream.
            wanted: whether a stream that broke off is to be opened again.

        Raises:
            EngineError: the engine cannot be reached for `patience` seconds, or was restarted meanwhile.
        """
        last, broken, pause = -1, 0.0, PAUSE
        timeout = httpx.Timeout(SILENCE, connect=CONNECT)
        while True:
            try:
                headers = {"Last-Event-ID": str(last)}
                with self._http.stream("GET", path, headers=headers, timeout=timeout) as answer:
                    if answer.status_code == 404:
                        raise EngineError(
                            f"the engine at {self.url} was restarted, and this response is lost; generate it again"
                        )
                    if not answer.is_success:
                        answer.read()
                        self.check(answer)
                    for number, event in parsed(answer.iter_lines()):
                        last, broken, pause = max(last, number), 0.0, PAUSE
                        yield event
                error: Exception = httpx.RemoteProtocolError("the stream broke off")
            except ERRORS as caught:
                error = caught
            broken = broken or time.monotonic()
            if time.monotonic() - broken > self.patience or self._http.is_closed or not wanted():
                raise self.unreachable(error)
            time.sleep(pause)
            pause = min(2 * pause, 2.0)

    def close(self) -> None:
        """Close all connections, after the requests that were to be sent later."""
        self._posts.put(None)
        self._poster.join(CONNECT)
        self._http.close()


def parsed(lines: Iterator[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (number or -1, event) of server-sent events' lines."""
    number, data = -1, ""
    for line in lines:
        if line.startswith("id: "):
            number = int(line[4:])
        elif line.startswith("data: "):
            data = line[6:]
        elif not line and data:
            yield number, json.loads(data)
            number, data = -1, ""
