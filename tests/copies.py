"""Processes that begin with the large libraries imported: copies of one that has done it and waits.

Importing torch, transformers and Gradio takes ten seconds of one core, and most of the tests that need a process of its
own (to kill it, or for its exit status) need it for what comes afterwards. `start` and `run` are like
`subprocess.Popen` and `subprocess.run`; the app's own modules are imported by each copy, from its own folder.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import IO, Any, TypeAlias

LIBRARIES = (
    "torch", "transformers.models.llama.modeling_llama", "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto", "gradio", "pandas", "scipy.optimize", "scipy.stats",
    "plotly.graph_objects", "pyarrow", "sqlite_utils", "typer", "rich.console", "uvicorn", "prometheus_client",
)  # fmt: skip
# What libraries read when they are imported: a process with other values of these is not a copy.
READ_AT_IMPORT = ("HF_", "HUGGINGFACE_", "TRANSFORMERS_", "PYTHON", "OMP_", "MKL_")
# Among these: what engine/cli/runner.py sets, as copies have it, and what they obey.
NO_MATTER = ("HF_HUB_DISABLE_PROGRESS_BARS", "TRANSFORMERS_VERBOSITY", "PYTHONPATH")
ENDED = b"ended "


def _read_at_import(environment: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value for name, value in environment.items() if name.startswith(READ_AT_IMPORT) and name not in NO_MATTER
    }


BEGUN = dict(os.environ)


class Copy:
    """What tests use of a `subprocess.Popen`, of a process that is the child of another one."""

    def __init__(self, control: socket.socket, request: dict[str, Any], stdin: Any, stdout: Any, stderr: Any) -> None:
        self.args, self.returncode = request["command"], None
        self.stdin: IO[str] | None = None
        self.stdout: IO[str] | None = None
        self.stderr: IO[str] | None = None
        own, self._ended = socket.socketpair()
        null = os.open(os.devnull, os.O_RDWR)
        given, opened = [], [null]
        for number, (name, target) in enumerate((("stdin", stdin), ("stdout", stdout), ("stderr", stderr))):
            if target is subprocess.PIPE:
                ends = os.pipe()
                here, there = ends[::-1] if number == 0 else ends
                setattr(self, name, os.fdopen(here, "w" if number == 0 else "r"))
                opened.append(there)
                given.append(there)
            elif target is subprocess.STDOUT:
                given.append(given[1])
            elif target in (None, subprocess.DEVNULL):
                given.append(number if target is None and number else null)
            else:
                given.append(target if isinstance(target, int) else target.fileno())
        socket.send_fds(control, [json.dumps(request).encode()], [*given, own.fileno()])
        own.close()
        for number in opened:
            os.close(number)
        self.pid = int(self._ended.recv(64))

    def poll(self) -> int | None:
        if self.returncode is None and select.select([self._ended], [], [], 0)[0]:
            self._note()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not select.select([self._ended], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            self._note()
        assert self.returncode is not None
        return self.returncode

    def _note(self) -> None:
        self.returncode = os.waitstatus_to_exitcode(int(self._ended.recv(64).removeprefix(ENDED)))
        self._ended.close()

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Read what it writes until it ends."""
        found = {"stdout": "", "stderr": ""}
        if self.stdin:
            self.stdin.close()

        def read(name: str) -> None:
            if (stream := getattr(self, name)) and not stream.closed:
                found[name] = stream.read()
                stream.close()

        readers = [threading.Thread(target=read, args=[name], daemon=True) for name in found]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join(timeout)
            if reader.is_alive():
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
        self.wait(timeout)
        return found["stdout"], found["stderr"]

    def __enter__(self) -> Copy:
        return self

    def __exit__(self, *_: object) -> None:
        for stream in (self.stdin, self.stdout, self.stderr):
            if stream:
                stream.close()
        self.wait()


@cache
def _original() -> tuple[socket.socket, subprocess.Popen[bytes], tempfile.TemporaryDirectory[str]]:
    """The process that copies are made of, and the socket that asks for one; it ends when that is closed."""
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    # What engine/__init__.py sets before torch is imported; and an empty cache.
    folder = tempfile.TemporaryDirectory(prefix="mixdesk-copies-")  # removed when this process ends
    settings = {"GOMP_SPINCOUNT": "4000", "XDG_CACHE_HOME": folder.name}
    settings |= {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "TRANSFORMERS_VERBOSITY": "error"}  # as engine/cli/runner.py does
    command = [sys.executable, __file__, str(there.fileno())]
    process = subprocess.Popen(command, env={**BEGUN, **settings}, pass_fds=[there.fileno()], cwd="/")
    there.close()
    return here, process, folder


Process: TypeAlias = "Copy | subprocess.Popen[str]"


def start(
    command: Sequence[str | Path],
    cwd: str | Path,
    env: Mapping[str, str] | None = None,
    stdin: Any = None,
    stdout: Any = None,
    stderr: Any = None,
) -> Process:
    """Start `python -m MODULE ...` or `python -c PROGRAM ...`, as a copy where that makes no difference."""
    arguments, environment = [str(part) for part in command], dict(os.environ if env is None else env)
    streams = {"stdin": stdin, "stdout": stdout, "stderr": stderr}
    if (
        _read_at_import(environment) != _read_at_import(BEGUN)
        or arguments[0] != sys.executable
        or arguments[1] not in ("-m", "-c")
    ):
        return subprocess.Popen(arguments, cwd=cwd, env=environment, text=True, **streams)
    control, *_ = _original()
    return Copy(control, {"command": arguments, "cwd": str(cwd), "environment": environment}, **streams)


def run(
    command: Sequence[str | Path],
    cwd: str | Path,
    env: Mapping[str, str] | None = None,
    timeout: float = 120,
    stdin: str | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run to the end, and return the status and what was written."""
    with (
        tempfile.TemporaryFile("w+") as given,
        tempfile.TemporaryFile("w+") as out,
        tempfile.TemporaryFile("w+") as err,
    ):
        given.write(stdin or "")
        given.seek(0)
        process = start(command, cwd, env, stdin=given, stdout=out, stderr=err)
        try:
            process.wait(timeout)
        finally:
            process.kill()
        for file in (out, err):
            file.seek(0)
        return subprocess.CompletedProcess(process.args, process.wait(), out.read(), err.read())


# ------------------------------------------------------------------------------------------ in the process of its own


def _next_request(control: socket.socket) -> tuple[dict[str, Any], list[int]]:
    content, descriptors, _, _ = socket.recv_fds(control, 2**18, 4)
    if not content:
        os._exit(0)
    return json.loads(content), descriptors


def _serve(control: socket.socket) -> dict[str, Any]:
    """Make copies until the other end is closed; return in each copy, with what it is to do."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        request, descriptors = _next_request(control)
        if os.fork():
            for number in descriptors:
                os.close(number)
            continue
        # One process waits for the copy, and says how it ended.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        if copy := os.fork():
            *streams, number = descriptors
            for stream in streams:
                os.close(stream)
            ended = socket.socket(fileno=number)
            ended.send(str(copy).encode())
            _, status = os.waitpid(copy, 0)
            try:
                ended.send(ENDED + str(status).encode())
            finally:
                os._exit(0)
        for target, number in enumerate(descriptors[:3]):
            os.dup2(number, target)
        for number in (*descriptors, control.fileno()):
            os.close(number)
        return request


def _become(request: dict[str, Any]) -> None:
    import atexit
    import runpy
    import traceback
    import types

    _, kind, what, *arguments = request["command"]
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    paths = request["environment"].get("PYTHONPATH", "")
    sys.path[:0] = [request["cwd"] if kind == "-m" else "", *filter(None, paths.split(os.pathsep))]
    sys.argv = [kind, *arguments]
    status: Any = 0
    try:
        if kind == "-m":
            runpy.run_module(what, run_name="__main__", alter_sys=True)
        else:
            main = sys.modules["__main__"] = types.ModuleType("__main__")
            exec(compile(what, "<string>", "exec"), main.__dict__)
    except SystemExit as end:
        status = end.code or 0
        if not isinstance(status, int):
            print(status, file=sys.stderr)
            status = 1
    except BaseException:
        traceback.print_exc()
        status = 1
    # As at any process's end, but for taking all modules apart: that would copy their memory first.
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status & 0xFF)


def _main() -> None:
    import importlib

    control = socket.socket(fileno=int(sys.argv[1]))
    del sys.path[0]  # the folder of this file
    for library in LIBRARIES:
        importlib.import_module(library)
    assert not {"engine", "app", "data", "tests"} & set(sys.modules)
    _become(_serve(control))


if __name__ == "__main__":
    _main()
