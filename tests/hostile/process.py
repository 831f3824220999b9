"""The app as a process that is started, killed and started again."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil

from engine.config import DEMO
from tests.browser.serving import ROOT, free_port

PATIENCE = 600  # seconds until the app must answer: it needs some 10 by itself, and many times that on a busy machine


class AppProcess:
    """`python -m app` on the bundled configuration, with everything that it writes in one folder."""

    def __init__(self, folder: Path, longest_file: int | None = None) -> None:
        """longest_file: bytes that a file may have, as if the disk were full."""
        self.folder, self.longest_file = folder, longest_file
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/"
        self.db, self.log = folder / "mixdesk.db", folder / "app.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.longest_start = 0.0  # seconds

    async def start(self) -> None:
        """Start the process and wait until its page is there."""
        command: list[str | Path] = [
            sys.executable,
            "-m",
            "app",
            "--config",
            DEMO,
            "--port",
            str(self.port),
            "--db",
            self.db,
        ]
        env = {**os.environ, "XDG_CACHE_HOME": str(self.folder / "cache"), "HF_HUB_OFFLINE": "1"}
        env.pop("MIXDESK_CONFIG", None)
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=env, stdout=output, stderr=output, preexec_fn=self._limit
            )
        began = time.monotonic()
        async with httpx.AsyncClient(timeout=5) as client:
            while True:
                if self.process.poll() is not None:
                    raise RuntimeError(f"the app ended: {self.tail()}")
                if time.monotonic() - began > PATIENCE:
                    raise RuntimeError(f"the app does not answer: {self.tail()}")
                try:
                    if (await client.get(self.url)).status_code == 200:
                        self.longest_start = max(self.longest_start, time.monotonic() - began)
                        return
                except httpx.HTTPError:
                    pass
                await asyncio.sleep(0.2)

    def _limit(self) -> None:
        if self.longest_file is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (self.longest_file, self.longest_file))

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self.process is not None and self.process.poll() is None

    def memory(self) -> int:
        """Return the resident memory in bytes."""
        assert self.process is not None
        return int(psutil.Process(self.process.pid).memory_info().rss)

    def cpu_seconds(self) -> float:
        """Return the processor time that it has used."""
        assert self.process is not None
        times = psutil.Process(self.process.pid).cpu_times()
        return float(times.user + times.system)

    def kill(self) -> None:
        """End the process as kill -9 does."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> tuple[int, float]:
        """End the process as SIGTERM does; return its exit status and the seconds that it took."""
        assert self.process is not None
        began = time.monotonic()
        self.process.terminate()
        try:
            status = self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.kill()
            status = -9
        return status, time.monotonic() - began

    def tail(self, lines: int = 5) -> str:
        """Return the last lines of the log in one."""
        return " | ".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def stored(self) -> set[str]:
        """Return the ids of the ratings in the database, all of which must have both of their completions."""
        source = sqlite3.connect(f"file:{self.db}?mode=ro", uri=True)
        try:
            (said,) = source.execute("pragma integrity_check").fetchone()
            if said != "ok":
                raise RuntimeError(f"the database is damaged: {said}")
            query = (
                "select ratings.id from ratings join completions a on a.id = left_id join completions b on "
                "b.id = right_id"
            )
            whole = {row[0] for row in source.execute(query)}
            every = {row[0] for row in source.execute("select id from ratings")}
            if whole != every:
                raise RuntimeError(f"{len(every - whole)} ratings lack a completion")
            return whole
        finally:
            source.close()
