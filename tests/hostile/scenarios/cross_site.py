"""A page of another site in Chromium, which tries to use the app that listens on the same machine."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from playwright.sync_api import Response

from tests.browser.conftest import chromium
from tests.hostile.client import JOIN, PREDICT, Client
from tests.hostile.process import AppProcess
from tests.hostile.result import Result

# Each resolves with what the page has got hold of; "" if the browser or the app kept it from that.
TRY = """async ([url, body]) => {
    const got = {};
    const attempt = async (name, act) => {
        try { got[name] = String(await act()); } catch (error) { got[name] = ""; }
    };
    const text = async (answer) => (await answer).text();
    const plain = {method: "POST", body, headers: {"Content-Type": "text/plain"}};
    const typed = {...plain, headers: {"Content-Type": "application/json"}};
    const unread = async (path) => { await fetch(url + path, {...plain, mode: "no-cors"}); return ""; };
    await attempt("read the page", () => text(fetch(url)));
    await attempt("read the settings", () => text(fetch(url + "config")));
    await attempt("read the export", () => text(fetch(url + "comparisons/1.csv")));
    await attempt("send JSON", () => text(fetch(url + "steer", typed)));
    await attempt("send text", () => text(fetch(url + "gradio_api/queue/join", plain)));
    await attempt("send with cookies", () => text(fetch(url + "steer", {...plain, credentials: "include"})));
    for (const path of ["gradio_api/queue/join", "gradio_api/run/predict", "steer", "configurations/demo"])
        await attempt("send unread to " + path, () => unread(path));
    await attempt("look into a frame", () => new Promise((done) => {
        const frame = document.createElement("iframe");
        frame.onload = () => { try { done(frame.contentDocument?.title ?? ""); } catch { done(""); } };
        frame.onerror = () => done("");
        frame.src = url;
        document.body.append(frame);
        setTimeout(() => done(""), 5000);
    }));
    return got;
}"""
FORM = """([url, body]) => {
    const form = Object.assign(document.createElement("form"), {method: "POST", action: url, enctype: "text/plain"});
    form.append(Object.assign(document.createElement("input"), {name: body}));
    document.body.append(form);
    form.submit();
}"""


class Stranger(BaseHTTPRequestHandler):
    """The other site: an empty page."""

    def do_GET(self) -> None:
        """Send the page."""
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>A stranger</title><body>")

    def log_message(self, *_: Any) -> None:
        """Discard the access log."""


@contextmanager
def stranger() -> Iterator[str]:
    """The other site's address, on another port, until the block is left."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Stranger)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()


def note(url: str, posts: list[tuple[str, int]], answer: Response) -> None:
    """Note the status of a POST to the app."""
    if answer.request.method == "POST" and answer.url.startswith(url):
        posts.append((answer.url, answer.status))


def attack(url: str, body: str, result: Result) -> None:
    """Open the other site in Chromium, and let it try."""
    with stranger() as site, chromium() as browser:
        for name in (site, site.replace("127.0.0.1", "localhost")):
            page, posts = browser.new_page(), list[tuple[str, int]]()
            page.on("response", partial(note, url, posts))
            page.goto(name)
            got = page.evaluate(TRY, [url, body])
            for attempt, seen in got.items():
                result.check(not seen, f"{name} could {attempt}: {seen[:80]}")
            page.evaluate(FORM, [url + JOIN, body])
            page.wait_for_timeout(2000)
            result.check(bool(posts), "no request reached the app")
            for address, status in posts:
                result.check(status == 403, f"from {name}: POST {address} was answered with {status}, expected 403")
            page.close()


async def run(app: AppProcess, scale: float) -> Result:
    """Let the stranger try to generate, rate, steer, load and fetch."""
    result = Result(before=app.memory())
    async with Client.open(app.url) as client:
        body = json.dumps(client.generate_body("What a stranger asks", 1, 4))
        await asyncio.to_thread(attack, app.url, body, result)
        for headers in ({"Host": "rebound.example"}, {"Origin": "https://stranger.example"}):
            for path in (JOIN, PREDICT, "steer"):
                sent = {"Content-Type": "application/json", **headers}
                answer = await client.http.post(path, content=body, headers=sent)
                refused = answer.status_code in (403, 421)  # 421: that host's name is not the app's
                result.check(refused, f"{headers}: POST {path} was answered with {answer.status_code}, expected 403")
        made = await client.again().generate("How do I clean a pan?")
        result.check(all(made.texts.values()), "the app's own page is not served afterwards")
    result.after = app.memory()
    return result
