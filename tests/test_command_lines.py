"""Command lines with mistakes: each is an exit status and one line that says how to mend it, and writes nothing."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

import pytest
from transformers.utils import logging as transformers_logging

from app.__main__ import main as app_main
from engine.cli.main import app as engine_app
from engine.cli.runner import run
from tests.conftest import Tiny

GENERATE = "generate --config {tiny} --prompt mix "
SOLVE = "solve --config {tiny} --prompts {prompts} "
EVALUATE = "evaluate --config {tiny} --prompts {prompts} "
IMPORT = "import --name votes --db {tmp}/new.db "
EXPORT = "export --db {tmp}/ratings.db --out {tmp}/out "
MESSAGES = "generate --config {tiny} --messages {tmp}/"
NOBODY = "~nobody-at-all"

# What `python -m engine` is given, and what its line says. A text in {} is filled in below; \udc80 is no character.
ENGINE: list[tuple[str, str]] = [
    ("", "Missing command"),
    ("--version", "No such option"),
    ("GENERATE", "No such command 'GENERATE'"),
    ("generate extra --prompt mix", "unexpected extra argument"),
    ("generate --prompt", "requires an argument"),
    ("generate --promt mix", "No such option: --promt"),
    ("generate --config {tmp} --prompt mix", "a folder; give --config the path"),
    ("generate --config {tmp}/gone.yaml --prompt mix", "no such file"),
    ("generate --config '' --prompt mix", "a folder; give --config the path"),
    (f"generate --config {NOBODY}/x.yaml --prompt mix", "--config: "),
    ("generate --config {tmp}/pipe --prompt mix", "not a regular file"),
    ("generate --config {prompts} --prompt mix", "expected a mapping with name, base, policies"),
    ("generate --config {tmp}/ratings.db --prompt mix", "save it as UTF-8"),
    ("generate --config {tiny} --prompt '   '", "prompt: it is empty"),
    ("generate --config {tiny} --prompt \udc80", "half a character"),
    (GENERATE + "--temperature nan", "temperature: found nan; give a number from 0"),
    (GENERATE + "--temperature inf", "temperature: found inf; give"),
    (GENERATE + "--temperature -1", "temperature: found -1.0; give"),
    (GENERATE + "--temperature hot", "--temperature"),
    (GENERATE + "--temperature 1e999", "temperature: found inf; give"),
    (GENERATE + "--top-p 0", "top_p: found 0.0; give"),
    (GENERATE + "--top-p nan", "top_p: found nan; give"),
    (GENERATE + "--top-k -1", "top_k: found -1; give"),
    (GENERATE + "--min-p 1.5", "min_p: found 1.5; give"),
    (GENERATE + "--min-p nan", "min_p: found nan; give"),
    (GENERATE + "--repetition-penalty 0", "repetition_penalty: found 0.0; give"),
    (GENERATE + "--repetition-penalty nan", "repetition_penalty: found nan; give"),
    (GENERATE + "--max-new-tokens 0", "max_new_tokens: found 0; give 1 or more"),
    (GENERATE + "--max-new-tokens 1.5", "--max-new-tokens"),
    (GENERATE + "--max-new-tokens 99999999999999999999", "tokens"),
    (GENERATE + "--stop ''", "stop: found a string of 0 characters; give 1 to 500"),
    (GENERATE + "--stop a " + "--stop a " * 16, "stop: found 17 strings; give 16 or fewer"),
    (GENERATE + "--particles 0", "particles: found 0; give"),
    (GENERATE + "--particles 1000000", "give"),
    (GENERATE + "--seed -1", "seed: found -1; give"),
    (GENERATE + "--seed 9223372036854775808", "seed: found 9223372036854775808; give"),
    (GENERATE + "--gain nan", "gain"),
    (GENERATE + "--gain -1", "gain"),
    (GENERATE + "--exponent nan --rule power", "exponent"),
    (GENERATE + "--date yesterday", "date: found 'yesterday'; give one such as"),
    (GENERATE + "--date \udc80", "date: found"),
    (GENERATE + "--weights ''", "weights: found '', expected name=number"),
    (GENERATE + "--weights ,", "expected name=number"),
    (GENERATE + "--weights plain=1=2", "expected name=number"),
    (GENERATE + "--weights plain=1e999", "plain is inf"),
    (GENERATE + "--weights \udc80=1", "no policy is called"),
    (GENERATE + "--weights reference=0", "all are zero"),
    (MESSAGES + "gone.json", "No such file or directory; give a JSON file"),
    (MESSAGES, "Is a directory; give a JSON file"),
    (MESSAGES + "deep.json", "not JSON"),
    (MESSAGES + "no-utf8.json", "not JSON"),
    (MESSAGES + "empty.json", "it has no messages; give one at least"),
    (MESSAGES + "system.json", "the role is 'system', expected 'user'"),
    ("generate --config {tiny} --messages -", "stdin: not JSON"),
    ("serve --port 99999", "--port"),
    ("serve --port 0 --api-key short", "MIXDESK_API_KEYS: a key has 5 characters; give 16 or more"),
    ("serve --port 0 --api-key 'a key with five spaces'", "a space"),
    ("serve --port 0 --host 203.0.113.1", "--port: cannot listen on 203.0.113.1"),
    ("serve --port 0 --config {tmp}", "a folder; give --config the path"),
    ("score --config {tiny} --prompt mix --response \udc80", "response: it holds half a character"),
    ("solve --config {tiny}", "prompts: found nothing, expected a file; or give --prompts"),
    (SOLVE + "--method alchemy", "no method is called 'alchemy'"),
    (SOLVE + "--limit 0", "limit and responses must be 1 or more"),
    (SOLVE + "--responses -3", "limit and responses must be 1 or more"),
    (SOLVE + "--temperature nan", "temperature: found nan"),
    (SOLVE + "--target plain=1 --method mpo", "--target is for --method target"),
    (SOLVE + "--method target --target plain=nan", "plain is nan; give a finite number"),
    (SOLVE + "--method target --target nothing=1", "no reward is for 'nothing'"),
    (SOLVE + "--method target --floor plain", "expected name=number"),
    (SOLVE + "--method nash", "--method nash needs --ratings"),
    (SOLVE + "--method nash --ratings {tmp}", "Is a directory; give"),
    (SOLVE + "--method nash --ratings {prompts}", "line 1: not a rating"),
    (SOLVE + "--ratings {prompts}", "--ratings is for --method nash"),
    ("solve --config {tiny} --prompts {tmp}", "Is a directory; give a file of prompts"),
    ("solve --config {tiny} --prompts {tmp}/no-utf8.json", "no-utf8.json"),
    ("solve --config {tiny} --column text", "--column is for --prompts"),
    (SOLVE + "--column text", "leave the column out"),
    (EVALUATE + "--methods alchemy --solve-with 1", "methods: none is called 'alchemy'"),
    (EVALUATE + "--methods '' --solve-with 1", "methods: none is called ''"),
    (EVALUATE + "--methods all --solve-with -1", "--solve-with must be 1 or more"),
    (EVALUATE + "--methods all --limit -1", "--limit 0 or more"),
    (EVALUATE + "--methods all --solve-with 100", "prompts are too few"),
    (EVALUATE + "--methods all --responses {tmp}", "not a file that --responses wrote; give"),
    (EVALUATE + "--methods all --responses {tmp}/no-utf8.json", "not a file that --responses wrote; give"),
    (EVALUATE + "--judges {tiny}", "--judges and --responses are for --methods"),
    (EVALUATE + "--methods all --judges {tmp}/gone.yaml", "no such file"),
    ("bench --shape huge", "shape: found 'huge'; give one of"),
    ("bench --k 0", "k: found 0; give"),
    ("bench --k 1e3", "--k"),
    ("bench --shape tiny --steps 0", "steps must be 1 or more"),
    ("bench --shape tiny --prompt-length -1", "prompt_length from 1 to 4096"),
    ("bench --shape tiny --dtype float8", "dtype: found 'float8'; give"),
    ("bench --shape tiny --device tpu", "device: found 'tpu'; give"),
    ("bench --shape tiny --device cuda:x", "device: found 'cuda:x'; give"),
    ("fetch gold", "fetch: found 'gold', expected one of"),
    ("fetch ''", "fetch: found '', expected one of"),
    ("fetch ../gold", "fetch: found '../gold', expected one of"),
    ("fetch {tiny}", "nothing is to be fetched for it"),
    ("fetch {tmp}/gone.yaml", "nothing is to be fetched for it"),
    (f"fetch {NOBODY}/x.yaml", "a user who has no home here; give the whole path"),
    ("fetch qwen extra", "unexpected extra argument"),
    ("list everything", "unexpected extra argument"),
]
# What `python -m app` is given, and what its line says.
APP: list[tuple[str, str]] = [
    ("--port 0", "--port"),
    ("--port -1", "--port"),
    ("--port 65536", "--port"),
    ("--port 7860.5", "--port"),
    ("--port", "requires an argument"),
    ("--host 999.1.1.1", "--port: cannot listen on 999.1.1.1"),
    ("--host a..b", "--host: found 'a..b'; give an address"),
    (f"--host {'x' * 70}.example", "; give"),
    ("--loaded 0", "--loaded"),
    ("--loaded many", "--loaded"),
    ("--config {tmp} --db {tmp}/new.db --port {free}", "a folder; give --config"),
    ("--config {tmp}/gone.yaml --db {tmp}/new.db --port {free}", "no such file"),
    ("--config {tmp}/pipe --db {tmp}/new.db --port {free}", "not a regular file"),
    ("--config {tiny} --config {tmp}/gone.yaml --db {tmp}/new.db --port {free}", "no such file"),
    ("--config {prompts} --db {tmp}/new.db --port {free}", "expected a mapping"),
    ("--config {tiny} --db {tmp} --port {free}", "cannot use it as the database"),
    ("--config {tiny} --db {prompts} --port {free}", "cannot use it as the database"),
    ("--config {tiny} --db {prompts}/x.db --port {free}", "cannot make its folder"),
    (f"--config {{tiny}} --db {NOBODY}/x.db --port {{free}}", "a user who has no home here"),
    ("--owner", "requires an argument"),
    ("--owner ada --port {free}", "--owner: nobody can sign in here: set OAUTH_CLIENT_ID"),
    ("start", "No such command 'start'"),
    ("export", "Missing option '--out'"),
    ("export --db {tmp}/gone.db --out {tmp}/out", "no such database"),
    ("export --db {prompts} --out {tmp}/out", "it is not an SQLite database"),
    ("export --db {tmp} --out {tmp}/out", "; give"),
    (EXPORT + "--format xml", "--format: found 'xml'; give one of"),
    (EXPORT + "--format", "requires an argument"),
    (EXPORT + "--format dataset", "--format: found 'dataset'; give one of trl, kto, jsonl, csv"),
    (EXPORT + "--names", "--names, --per-vote and --push are for the votes of a study"),
    (EXPORT + "--push me/votes", "--names, --per-vote and --push are for the votes of a study"),
    (EXPORT + "--study gone", "--study: there is none called 'gone'; the database holds no study"),
    (EXPORT + "--study gone --format xml", "--format: found 'xml'; give one of trl, kto, jsonl, csv, parquet, dataset"),
    (EXPORT + "--study gone --push me/votes", "--push: it is for --format dataset, found trl"),
    (EXPORT + "--study gone --format dataset --push votes", "--push: found 'votes'; give a dataset on the hub"),
    ("export --db {tmp}/ratings.db --study gone --format dataset --out {tmp}", "holds other files"),
    ("export --db {tmp}/ratings.db --study gone --format dataset --out {prompts}", "is a file; give a folder"),
    ("export --db {tmp}/ratings.db --out {tmp}", "--out: cannot write"),
    ("export --db {tmp}/ratings.db --out {prompts}/out", "--out: cannot write"),
    ("export --db {tmp}/ratings.db --out {tmp}/ratings.db", "is the database itself; give another file"),
    ("export --db {tmp}/ratings.db --out {tmp}/link.db", "is the database itself; give another file"),
    ("import", "Missing argument 'file'"),
    ("import {tmp}/votes.csv", "Missing option '--name'"),
    (IMPORT + "{tmp}/gone.csv", "No such file or directory; give a file of votes"),
    (IMPORT + "{tmp}", "Is a directory; give a file of votes"),
    (IMPORT + "{prompts}", "give a file of votes that ends in .csv"),
    (IMPORT + "{tmp}/votes.csv", "votes.csv, line 3: winner: found 'nobody'; give left, right, tie, both_bad"),
    (IMPORT + "{tmp}/votes.csv --column annotator", "--column: found 'annotator', expected what=column"),
    (IMPORT + "{tmp}/votes.csv --column voter=annotator", "--column: found 'voter=annotator'; give one of item"),
    (IMPORT + "{tmp}/votes.csv --column winner=best", "it has no column best; found item, left, right, winner"),
    (IMPORT + "{tmp}/empty.json", "it has no column for the item; found none"),
    (IMPORT + "{tmp}/deep.json", "not JSON"),
    ("import {tmp}/one.csv --name '' --db {tmp}/new.db", "--name: found '', expected a name that is not empty"),
    ("import {tmp}/one.csv --name votes --db {prompts}", "cannot use it as the database"),
    (f"export --db {{tmp}}/ratings.db --out {NOBODY}/out", "a user who has no home here; give the whole path"),
]


@pytest.fixture
def place(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The files that the command lines name; the current folder is among them, and the cache is elsewhere."""
    from app.storage.database import Store

    folder = tmp_path / "work"
    folder.mkdir()
    for name, content in {
        "prompts.txt": b"mix\nmove the faders\n",
        "deep.json": b"[" * 100_000,
        "no-utf8.json": b'[{"role": "user", "content": "\xff"}]',
        "empty.json": b"[]",
        "votes.csv": b"item,left,right,winner,annotator\nq,x,y,x,anna\nq,x,y,nobody,bert\n",
        "one.csv": b"item,left,right,winner,annotator\nq,x,y,x,anna\n",
        "system.json": b'[{"role": "system", "content": "be brief"}]',
    }.items():
        (folder / name).write_bytes(content)
    os.mkfifo(folder / "pipe")
    Store(folder / "ratings.db").close()
    (folder / "link.db").symlink_to("ratings.db")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
    for name in (
        *("MIXDESK_CONFIG", "MIXDESK_DB", "MIXDESK_LOADED", "PORT", "GRADIO_SERVER_PORT", "GRADIO_SERVER_NAME"),
        *("OAUTH_CLIENT_ID", "MIXDESK_OWNERS"),
    ):
        monkeypatch.delenv(name, raising=False)
    return {"tmp": str(folder), "tiny": str(tiny.config), "prompts": str(folder / "prompts.txt"), "free": free_port()}


def free_port() -> str:
    from tests.browser.serving import free_port

    return str(free_port())


def written(folder: str) -> dict[str, tuple[int, int]]:
    """Every file in the folder, with its size and time; SQLite may make two beside a database that it reads."""
    return {
        str(path): (path.lstat().st_size, path.lstat().st_mtime_ns)
        for path in Path(folder).rglob("*")
        if path.is_file() and not path.name.endswith(("-shm", "-wal"))
    }


def words(line: str, place: dict[str, str]) -> list[str]:
    """The arguments; '' is an empty one, and quotes hold blanks together."""
    import shlex

    return [word.format(**place) for word in shlex.split(line)]


def check(status: int, said: str, before: dict, place: dict[str, str], capfd: pytest.CaptureFixture[str]) -> None:
    found = capfd.readouterr()
    assert status == 2, found.err
    assert found.out == ""
    (line,) = found.err.strip().splitlines()
    assert line.startswith("error: ") and said in line and "Traceback" not in line and len(line) < 1200, line
    assert written(place["tmp"]) == before


def identify(value: object) -> str:
    return str(value).encode("ascii", "replace").decode()[:80]


@pytest.mark.parametrize(("line", "said"), ENGINE, ids=identify)
def test_of_the_engine(
    line: str, said: str, place: dict[str, str], capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    transformers_logging.disable_progress_bar()  # as `run` does where transformers is not imported yet
    before = written(place["tmp"])
    try:
        status = run(engine_app, "python -m engine", words(line, place))
    finally:
        transformers_logging.enable_progress_bar()
    check(status, said, before, place, capfd)
    assert not caplog.records


@pytest.mark.parametrize(("line", "said"), APP, ids=identify)
def test_of_the_app(line: str, said: str, place: dict[str, str], capfd: pytest.CaptureFixture[str]) -> None:
    before = written(place["tmp"])
    check(app_main(words(line, place)), said, before, place, capfd)
