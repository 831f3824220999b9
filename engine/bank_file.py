"""A bank on disk: in the user's cache, or shipped beside the configuration, under a name that changes with everything
that could change what is sampled."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Container
from pathlib import Path
from typing import Any

import platformdirs
from huggingface_hub import try_to_load_from_cache

from engine.config import Config
from engine.fetched import digest
from engine.gguf import hub_file, is_gguf
from engine.lines import append_line
from engine.mixing import Mixture
from engine.sampling import Sampling

Unit = tuple[str, int]  # prompt, number of the round
DIGITS = 4  # of log-probs and rewards in a shipped bank: far finer than its errors, and half the size


class BankFile:
    """JSON lines, one for each prompt and round. Whoever is killed while writing loses at most the line under way.

    path: in the cache, read and written. shipped: banks/ beside the configuration's file, read, and written by `ship`.
    proposals: their names.
    """

    def __init__(
        self,
        config: Config,
        sampling: Sampling,
        proposals: dict[str, Mixture],
        seed: int = 0,
        folder: Path | None = None,
    ) -> None:
        self.proposals = list(proposals)
        what = {
            "policies": fingerprint(config),
            # A bank takes no other settings.
            "sampling": {"max_new_tokens": sampling.max_new_tokens, "temperature": sampling.temperature},
            "proposals": {name: mixture.as_dict() for name, mixture in proposals.items()},
            "seed": seed,
            "version": 1,
        }
        key = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]
        folder = folder or platformdirs.user_cache_path("mixdesk") / "banks"
        self.path = folder / f"{config.name}-{key}.jsonl"
        self.shipped = config.file.parent / "banks" / self.path.name

    def read(self) -> dict[Unit, list[dict[str, Any]]]:
        """{unit: its responses}; a torn line is left out."""
        return {**read_units(self.shipped), **read_units(self.path)}

    def ship(self, prompts: list[str]) -> None:
        """Write what there is of these prompts beside the configuration: found wherever its files are the same."""
        units = {unit: rows for unit, rows in self.read().items() if unit[0] in prompts}
        self.shipped.parent.mkdir(parents=True, exist_ok=True)
        lines = [line_of(unit, [shortened(row) for row in rows]) + "\n" for unit, rows in units.items()]
        self.shipped.write_text("".join(lines), encoding="utf-8")

    def add(self, unit: Unit, responses: list[dict[str, Any]]) -> None:
        append_line(self.path, line_of(unit, responses))


def whole_rounds(found: Container[Unit], prompts: list[str]) -> int:
    """How many rounds there are of every one of these prompts."""
    rounds = 0
    while prompts and all((prompt, rounds) in found for prompt in prompts):
        rounds += 1
    return rounds


def read_units(path: Path) -> dict[Unit, list[dict[str, Any]]]:
    found: dict[Unit, list[dict[str, Any]]] = {}
    if not path.is_file():
        return found
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
            found[row["prompt"], row["round"]] = row["responses"]
        except (ValueError, KeyError, TypeError):
            continue
    return found


def line_of(unit: Unit, responses: list[dict[str, Any]]) -> str:
    return json.dumps({"prompt": unit[0], "round": unit[1], "responses": responses})


def shortened(response: dict[str, Any]) -> dict[str, Any]:
    numbers = ("log_probs", "rewards")
    return response | {what: {name: round(v, DIGITS) for name, v in response[what].items()} for what in numbers}


def fingerprint(config: Config) -> list[Any]:
    """What the policies and rewards are: their settings, and what is in their files."""
    sources = ("adapter", "model", "base")

    def of(settings: dict[str, Any]) -> dict[str, Any]:
        found = {key: content(value) if value and key in sources else value for key, value in settings.items()}
        if found.get("chat_template") == "own":  # the default, which banks from before this setting have too
            del found["chat_template"]
        return found

    def content(value: str | list[str]) -> str | list[str]:
        return contents(value) if isinstance(value, str) else [contents(part) for part in value]

    rewards = []
    for reward in config.rewards:
        settings = of(reward.model_dump(exclude={"mean", "std"}, exclude_none=True))
        rewards.append({**settings, "source": source_of(reward.function)})
    return [
        contents(config.base),
        config.dtype,
        [of(policy.model_dump(exclude_none=True)) for policy in config.policies],
        rewards,
        *([of(config.reference.model_dump())] if config.reference else []),
        *([config.chat_template_kwargs] if config.chat_template_kwargs else []),
    ]


def contents(source: str) -> str:
    """A hash of a folder's files or of a GGUF file, or a hub id with the revision that is in the cache."""
    folder = Path(source)
    if is_gguf(source):
        local = source if folder.is_file() else try_to_load_from_cache(*hub_file(source))
        return digest(Path(local)) if isinstance(local, str) else f"{source}@unknown"
    if not folder.is_dir():
        repository, inner = "/".join(source.split("/")[:2]), "".join(f"{part}/" for part in source.split("/")[2:])
        names = ("config.json", "adapter_config.json", "head.json")
        cached = (try_to_load_from_cache(repository, f"{inner}{name}") for name in names)
        return f"{source}@{next((revision_of(file, inner) for file in cached if isinstance(file, str)), 'unknown')}"
    found = hashlib.sha256()
    settings = folder / "adapter_config.json"
    base = settings.is_file() and json.loads(settings.read_text()).get("base_model_name_or_path")
    if base and ((folder / base).is_dir() or (is_gguf(base) and (folder / base).is_file())):
        found.update(contents(str(folder / base)).encode())
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        found.update(file.relative_to(folder).as_posix().encode() + b"\0")
        with file.open("rb") as opened:
            while part := opened.read(1 << 20):
                found.update(part)
    return found.hexdigest()


def revision_of(file: str, inner: str) -> str:
    """The revision that a file in the hub's cache is of. inner: the folders inside the repository that it is in."""
    return Path(file).parents[inner.count("/")].name


def source_of(function: str | None) -> str | None:
    """The text of a reward's function, module:function."""
    if function is None:
        return None
    module, _, name = function.partition(":")
    try:
        return inspect.getsource(getattr(__import__(module, fromlist=[name]), name))
    except (OSError, TypeError, AttributeError):
        return None
