"""Where the routes find their engines and saved mixtures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from engine.inference.engine import Engine
from engine.rules.mixture import Mixture


class EngineSource(Protocol):
    """The engines that are loaded, and the mixtures that are saved under a name."""

    def engines(self) -> Mapping[str, Engine]:
        """Return {configuration: engine} of those that are loaded, the default first. It may change between calls."""
        ...

    def saved_mixture(self, name: str) -> Mixture | None:
        """Return the mixture that is saved under a name, which may be of any configuration; None if there is none."""
        ...

    def saved_names(self) -> list[str]:
        """Return the names of the saved mixtures."""
        ...


class FixedEngines:
    """A source whose engines stay the same, without saved mixtures."""

    def __init__(self, engines: Mapping[str, Engine]) -> None:
        """Take {configuration: engine}, the default first."""
        self._engines = engines

    def engines(self) -> Mapping[str, Engine]:
        """Return {configuration: engine}."""
        return self._engines

    def saved_mixture(self, name: str) -> Mixture | None:
        """Return None: there are no saved mixtures."""
        return None

    def saved_names(self) -> list[str]:
        """Return no names."""
        return []
