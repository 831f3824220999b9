"""The engines and saved mixtures of the site, for the routes of OpenAI's protocol."""

from __future__ import annotations

from collections.abc import Mapping

from app.server.configurations import Configurations
from app.storage.saved_mixtures import SavedMixtures
from engine import Engine, InputError, Mixture


class SiteEngines:
    """The engines of the configurations that are loaded, by the name in their desk's address, and the saved mixtures.

    It implements `engine.api.source.EngineSource`.
    """

    def __init__(self, configurations: Configurations, mixtures: SavedMixtures) -> None:
        self.configurations, self.mixtures = configurations, mixtures

    def engines(self) -> Mapping[str, Engine]:
        """Return {slug: engine} of the configurations that are loaded, the first of the menu first."""
        pages = {slug: configuration.page for slug, configuration in self.configurations.all.items()}
        return {slug: page.desk.engine for slug, page in pages.items() if page is not None}

    def saved_mixture(self, name: str) -> Mixture | None:
        """Return a saved mixture, whose policies may be another configuration's; None if there is none to be heard."""
        try:
            state = self.mixtures.load(name)
            return Mixture(state.audible_weights(), state.rule, state.gain, state.exponent)
        except InputError:
            return None

    def saved_names(self) -> list[str]:
        """Return the names of the saved mixtures."""
        return self.mixtures.names()
