"""Fingerprints of a configuration's policies and rewards."""

from __future__ import annotations

import hashlib
import inspect
import json
from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache

from engine.config import Config
from engine.model_cache import digest
from engine.models.gguf import hub_file, is_gguf


def config_fingerprint(config: Config) -> list[Any]:
    """Return the settings of the policies and rewards with hashes of their files, as JSON values."""
    if config.fingerprint is not None:
        return config.fingerprint
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
        function = source_of(settings.get("function"))
        # Banks are from before kinds had settings of their own, when every reward had a beta.
        rewards.append({"beta": 0.1, **settings, "source": function})
    return [
        contents(config.base),
        config.dtype,
        [of(policy.model_dump(exclude_none=True)) for policy in config.policies],
        rewards,
        *([of(config.reference.model_dump())] if config.reference else []),
        *([config.chat_template_kwargs] if config.chat_template_kwargs else []),
    ]


def contents(source: str) -> str:
    """Return a hash of a folder's files or of a GGUF file, or a hub id with its cached revision."""
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
    """Return the revision of a file in the hub's cache. inner: its folder inside the repository, ending in "/"."""
    return Path(file).parents[inner.count("/")].name


def source_of(function: str | None) -> str | None:
    """Return the source of a reward's function, module:function; None if it is not available."""
    if function is None:
        return None
    module, _, name = function.partition(":")
    try:
        return inspect.getsource(getattr(__import__(module, fromlist=[name]), name))
    except (OSError, TypeError, AttributeError):
        return None
