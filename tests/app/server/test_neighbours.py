"""Files of any kind beside a configuration: each costs its own place in the menu, and nothing else."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from app.server.configurations import Configurations, find, looks_like_one, name_of
from engine.config import load_config
from tests.engine.broken_texts import BOMB
from tests.engine.hostile_texts import MERGES

KEYS = "base: x\npolicies: []\n"


def huge(file: Path) -> None:
    with file.open("wb") as opened:
        opened.truncate(1 << 30)


def forbidden(file: Path) -> None:
    file.write_text(f"name: secret\n{KEYS}")
    file.chmod(0)


def written(content: str | bytes) -> Callable[[Path], object]:
    return lambda file: file.write_bytes(content if isinstance(content, bytes) else content.encode())


# {what lies beside: how it is made}: none of them is in the menu
LEFT_OUT: dict[str, Callable[[Path], object]] = {
    "a folder": Path.mkdir,
    "a pipe": os.mkfifo,
    "a dangling link": lambda file: file.symlink_to("gone"),
    "a link to itself": lambda file: file.symlink_to(file.name),
    "a link to a device": lambda file: file.symlink_to("/dev/zero"),
    "a gigabyte": huge,
    "nothing": written(""),
    "no UTF-8": written(b"name: \xff\xfe\n" + KEYS.encode()),
    "a zero byte": written(f"name: x\0\n{KEYS}"),
    "unclosed": written("name: ["),
    "nested too deeply": written("name: " + "[" * 3000),
    "a bomb of merges": written(MERGES + KEYS),
    "a truth that is none": written(f"name: !!bool perhaps\n{KEYS}"),
    "an integer of nothing": written(f'name: !!int ""\n{KEYS}'),
    "a date that is none": written(f"name: !!timestamp soon\n{KEYS}"),
    "a time that overflows": written("name: 1" + ":59" * 300 + f".5\n{KEYS}"),
    "an object of Python": written(f"name: !!python/object/apply:os.system [exit]\n{KEYS}"),
    "a key that is a list": written(f"? [a]\n: b\n{KEYS}"),
    "another's": written("services: {}\n"),
    "a list": written("- base\n- policies\n"),
}
# {what lies beside: (its content, the name in the menu)}
SHOWN: dict[str, tuple[str, str]] = {
    "a key given twice": (f"name: a\nname: b\n{KEYS}", "b"),
    "a bomb of aliases": (f"name: a\n{BOMB}{KEYS}", "a"),
    "a list for a name": (f"name: [a]\n{KEYS}", "beside"),
    "a name of two lines": (f'name: "a\\nb"\n{KEYS}', "beside"),
    "an endless name": (f"name: {'x' * 5000}\n{KEYS}", "beside"),
    "a name that leaves the folder": (f"name: ../../x\n{KEYS}", "../../x"),
    "a number for what it is about": (f"name: a\nabout: 7\n{KEYS}", "a"),
}


@pytest.fixture
def first(tiny, tmp_path: Path) -> Path:
    """The tiny configuration in a folder of its own."""
    text = tiny.config.read_text().replace("base: base", f"base: {tiny.base}")
    file = tmp_path / "first.yaml"
    file.write_text(text.replace("adapter: ", f"adapter: {tiny.folder}/"))
    load_config(file)
    return file


def menu(first: Path) -> list[str]:
    """The names in the menu after the first, encoded as a page would be."""
    made = Configurations(find(first), lambda *_: None, lambda *_: None)  # type: ignore[arg-type, return-value]
    names = [configuration.name for configuration in made.all.values()]
    assert "\n".join(names).encode()
    assert names[0] == "tiny"
    return names[1:]


@pytest.mark.parametrize("kind", LEFT_OUT)
def test_what_is_no_configuration_is_left_out(kind: str, first: Path) -> None:
    LEFT_OUT[kind](first.parent / "beside.yaml")
    (first.parent / "other.yml").write_text(f"name: other\n{KEYS}")
    assert menu(first) == ["other"]


@pytest.mark.parametrize("kind", SHOWN)
def test_what_is_a_broken_one_has_a_name_that_can_be_shown(kind: str, first: Path) -> None:
    text, name = SHOWN[kind]
    (first.parent / "beside.yaml").write_text(text)
    assert menu(first) == [name]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_what_this_user_may_not_read_is_left_out(first: Path) -> None:
    forbidden(first.parent / "beside.yaml")
    assert menu(first) == []


def test_a_file_name_may_be_no_text(first: Path) -> None:
    file = Path(os.fsdecode(os.fsencode(first.parent) + b"/\xff.yaml"))
    file.write_text(KEYS)
    assert looks_like_one(file)
    assert name_of(file) == "?"
    assert menu(first) == ["?"]


def test_a_folder_that_cannot_be_listed_has_the_named_ones(
    first: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Path, "glob", refuse)
    assert menu(first) == []
    assert "cannot be listed: Input/output error" in caplog.text
