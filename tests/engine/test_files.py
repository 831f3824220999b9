from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from engine.errors import InputError
from engine.evaluation.response_log import Memo
from engine.files import append_line, filling, replacing, write_json, write_text

ROOT = Path(__file__).parents[2]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def script(text: str, *arguments: Path | str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", text, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_file_appears_when_it_is_complete(tmp_path):
    file = tmp_path / "deep" / "file.txt"
    with replacing(file) as partial:
        partial.write_text("half")
        assert partial.parent == file.parent and partial.name.startswith(".")
        assert not file.exists()
    assert file.read_text() == "half" and names(file.parent) == ["file.txt"]


def test_two_writers_of_one_file_do_not_share_a_partial_file(tmp_path):
    file = tmp_path / "file.txt"
    with replacing(file) as one, replacing(file) as other:
        assert one != other
        one.write_text("one")
        other.write_text("other")
    assert file.read_text() == "one" and names(tmp_path) == ["file.txt"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_failure_leaves_the_older_file(tmp_path, error):
    file = tmp_path / "file.txt"
    file.write_text("older")
    with pytest.raises(error), replacing(file) as partial:
        partial.write_text("newer")
        raise error
    assert file.read_text() == "older" and names(tmp_path) == ["file.txt"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_ended_process_leaves_the_older_file_and_no_other(tmp_path, number):
    file = tmp_path / "file.txt"
    file.write_text("older")
    process = script(
        "import sys, time\n"
        "from pathlib import Path\n"
        "from engine.files import replacing\n"
        "with replacing(Path(sys.argv[1])) as partial:\n"
        "    partial.write_text('newer')\n"
        "    print('writing', flush=True)\n"
        "    time.sleep(60)\n",
        file,
    )
    try:
        assert process.stdout is not None and process.stdout.readline() == "writing\n"
        assert len(names(tmp_path)) == 2
        process.send_signal(number)
        assert process.wait(60) != 0
    finally:
        process.kill()
        process.communicate()
    assert file.read_text() == "older" and names(tmp_path) == ["file.txt"]


def test_links_and_permissions_stay(tmp_path):
    file, link = tmp_path / "file.json", tmp_path / "link.json"
    file.write_text("older")
    file.chmod(0o640)
    link.symlink_to(file)
    write_json(link, {"newer": 1})
    assert link.is_symlink() and file.read_text() == '{"newer": 1}'
    assert file.stat().st_mode & 0o777 == 0o640
    new = tmp_path / "new.json"
    write_json(new, 1)
    (tmp_path / "usual").write_text("")
    assert new.stat().st_mode == (tmp_path / "usual").stat().st_mode, "other users may read it as any other file"


def test_folders_devices_and_pipes_are_refused(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path, reason in ((tmp_path, "Is a directory"), (Path("/dev/full"), "device"), (pipe, "pipe")):
        with pytest.raises(OSError, match=reason) as raised:
            write_text(path, "text")
        assert raised.value.filename == str(path)
    assert names(tmp_path) == ["pipe"]


def test_a_folder_is_filled_when_all_its_files_are_written(tmp_path):
    folder = tmp_path / "deep" / "model"
    with filling(folder) as partial:
        (partial / "one").write_text("1")
        (partial / "part").mkdir()
        (partial / "part" / "two").write_text("2")
        assert names(folder) == [partial.name]
    assert names(folder) == ["one", "part"] and (folder / "part" / "two").read_text() == "2"
    with pytest.raises(ValueError), filling(folder) as partial:
        (partial / "one").write_text("newer")
        raise ValueError
    assert names(folder) == ["one", "part"] and (folder / "one").read_text() == "1"
    with pytest.raises(ValueError), filling(tmp_path / "other"):
        raise ValueError
    assert names(tmp_path) == ["deep"]


def test_a_full_disk_names_the_file(tmp_path):
    """A limit on the size of files stands for the full disk."""
    file = tmp_path / "file.txt"
    file.write_text("older")
    process = script(
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "from engine.files import append_line, write_text\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "for write in write_text, append_line:\n"
        "    try:\n"
        "        write(Path(sys.argv[1]), 'x' * 2000)\n"
        "    except OSError as error:\n"
        "        print(error.filename)\n"
        "    if write is write_text:\n"
        "        print(Path(sys.argv[1]).read_text())\n",
        file,
    )
    out, err = process.communicate(timeout=120)
    assert out.split() == [str(file), "older", str(file)], err
    assert names(tmp_path) == ["file.txt"]
    append_line(file, "next")
    assert file.read_text().splitlines()[-1] == "next"


def test_responses_are_not_appended_to_another_file(tmp_path):
    prompts, folder, data = tmp_path / "prompts.txt", tmp_path / "folder", tmp_path / "ratings.db"
    prompts.write_text("What is red?\n")
    folder.mkdir()
    data.write_bytes(b"SQLite format 3\0\xff\xfe")
    for path in (prompts, folder, data, Path("/dev/full")):
        with pytest.raises(InputError, match="a new file") as raised:
            Memo(path)
        assert str(path) in str(raised.value)
    assert prompts.read_text() == "What is red?\n"


@pytest.mark.parametrize("left", ["", "{", '{"key": "a', '{"key": "a", "value": 1}\n{"ke'])
def test_responses_are_appended_after_a_line_that_was_cut(tmp_path, left):
    file = tmp_path / "responses.jsonl"
    file.write_text(left)
    Memo(file)["b"] = 2
    assert Memo(file)["b"] == 2
