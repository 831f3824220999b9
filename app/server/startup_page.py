"""The page shown while libraries and models are loaded, when the port would otherwise refuse connections.

It uses only the standard library, so that it is available before the slow imports.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from string import Template
from typing import Any

log = logging.getLogger("mixdesk")

HEALTH = "/healthz"  # where a host asks whether the process answers, which it does

# The desk's colours, and its title where it will be. Read out when the words change, not each second.
PAGE = Template("""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Mixdesk is starting</title>
<style>
  :root { color-scheme: light dark; font-family: system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
  body { margin: 13px 20px; color: light-dark(#27272a, #f4f4f5); background: light-dark(#fff, #0f0f11); }
  h1 { margin: 0 0 14px; font-size: 22px; font-weight: 750; letter-spacing: -0.02em; }
  p { margin: 0; padding: 8px 12px; border: 1px solid light-dark(#e4e4e7, #3f3f46); border-radius: 8px;
      font-size: 14px; line-height: 1.4; overflow-wrap: anywhere; background: light-dark(#fafafa, #18181b); }
</style>
<main>
  <h1>Mixdesk</h1>
  <p><span role="status">$words</span> <span id="seconds">$seconds</span></p>
</main>
<script>
  const theme = new URLSearchParams(location.search).get("__theme");
  if (theme === "light" || theme === "dark") document.documentElement.style.colorScheme = theme;
  const say = (words, seconds) => {
    const line = document.querySelector("[role=status]");
    if (line.textContent !== words) line.textContent = words;
    document.getElementById("seconds").textContent = seconds;
  };
  const look = async () => {
    try {
      const answer = await fetch(location.href, { cache: "no-store" });
      if (answer.status < 500) return location.reload();
      const [, words, seconds] = (await answer.text()).match(/^(Mixdesk .+) (\\d+ s)$$/m);
      say(words, seconds);
    } catch {
      say("Mixdesk does not answer; if it has ended, its log says why.", "");
    }
    setTimeout(look, 500);
  };
  setTimeout(look, 500);
</script>
</html>
""")


class Answer(BaseHTTPRequestHandler):
    """Handler that answers requests with 503 and the progress, or 421 where another site's name was used."""

    server: Loading
    timeout = 10  # seconds for a request to come

    def do_GET(self) -> None:
        """Send the progress as HTML or plain text, as the Accept header prefers; 200 to the health check."""
        if not self.server.allows(self.headers.get("Host", "")):
            self.close_connection = True
            return self.send_error(HTTPStatus.MISDIRECTED_REQUEST)
        if self.path.partition("?")[0] == HEALTH:
            return self.answer(HTTPStatus.OK, "ok\n")
        words, seconds = f"Mixdesk is starting: {self.server.says}.", f"{time.monotonic() - self.server.began:.0f} s"
        page = "text/html" in self.headers.get("Accept", "")
        text = PAGE.substitute(words=escape(words), seconds=seconds) if page else f"{words} {seconds}\n"
        return self.answer(HTTPStatus.SERVICE_UNAVAILABLE, text, "html" if page else "plain")

    def answer(self, status: HTTPStatus, text: str, kind: str = "plain") -> None:
        """Send an answer; `kind` is html or plain."""
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", f"text/{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        if status == HTTPStatus.SERVICE_UNAVAILABLE:
            self.send_header("Retry-After", "1")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_GET  # noqa: N815

    def log_message(self, *_: Any) -> None:
        """Discard access logs, as the app that follows does."""


class Loading(ThreadingHTTPServer):
    """Server on an existing socket. `says` is what is being loaded, `began` the start time; `allows` checks a host."""

    def __init__(self, listener: socket.socket, allows: Callable[[str], bool]) -> None:
        self.allows = allows
        super().__init__(("", 0), Answer, bind_and_activate=False)
        self.socket.close()  # its own, which is not used
        self.socket = listener
        self.says, self.began = "importing the libraries", time.monotonic()

    def report(self, says: str) -> None:
        """Set the text of what is being loaded."""
        self.says = says

    def handle_error(self, *_: Any) -> None:
        """Log the error at debug level: most likely the client disconnected."""
        log.debug("the loading page could not be sent", exc_info=True)


@contextmanager
def answering(
    listener: socket.socket, allows: Callable[[str], bool] = lambda host: True
) -> Iterator[Callable[[str], None]]:
    """Answer requests on this listening socket with the latest progress until the block is left.

    Yields a function that sets the progress text. The socket stays open and listening: connections that arrive before
    the next server accepts wait instead of being refused.

    Args:
        listener: The socket.
        allows: Returns whether a Host header names this app.
    """
    server = Loading(listener, allows)
    # How often it looks whether the block was left.
    threading.Thread(target=server.serve_forever, args=(0.05,), name="mixdesk-loading-page", daemon=True).start()
    try:
        yield server.report
    finally:
        server.shutdown()
