"""Registries: a rule, a solver or a kind of reward is one file in its package, found by importing the package."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from typing import Protocol, TypeVar


class Registered(Protocol):
    """What a registry needs to know of its entries."""

    @property
    def name(self) -> str: ...

    @property
    def order(self) -> int: ...


T = TypeVar("T", bound=Registered)


class Registry(Mapping[str, T]):
    """The entries of a package by name: the value of `attribute` in each of its modules that defines it.

    Entries are listed by `order`, then by name. Modules are imported on first use.
    """

    def __init__(self, package: str, attribute: str) -> None:
        self.package, self.attribute = package, attribute
        self._entries: dict[str, T] | None = None

    def _load(self) -> dict[str, T]:
        if self._entries is None:
            folders = importlib.import_module(self.package).__path__
            modules = [importlib.import_module(f"{self.package}.{m.name}") for m in pkgutil.iter_modules(folders)]
            found: list[T] = [vars(module)[self.attribute] for module in modules if self.attribute in vars(module)]
            found.sort(key=lambda entry: (entry.order, entry.name))
            entries = {entry.name: entry for entry in found}
            if len(entries) < len(found):
                names = ", ".join(entry.name for entry in found)
                raise ValueError(f"two modules of {self.package} have the same name: {names}")
            self._entries = entries
        return self._entries

    def __getitem__(self, name: str) -> T:
        return self._load()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._load())

    def __len__(self) -> int:
        return len(self._load())
