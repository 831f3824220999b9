"""The adapters of a configuration that are folded into its base."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path

from torch import nn

from engine.errors import InputError, one_line
from engine.models.adapter_files import Lora, read_lora
from engine.models.adapter_fit import fit_to_fold
from engine.models.gguf import is_gguf
from engine.models.linear_layout import Layout, layout_of


class Adapters:
    """The adapters that are folded into the base, each once even if several policies use it.

    Attributes:
        base: the base.
        source: its path or hub id.
        folded: the adapters, in the order of the gate's columns.
    """

    def __init__(self, base: nn.Module, source: str, note: Callable[[str], None]) -> None:
        """Start without adapters.

        Args:
            base: the base.
            source: its path or hub id.
            note: a function that takes remarks on adapters, one sentence each.
        """
        self.base, self.source, self.note = base, source, note
        self.folded: list[Lora] = []
        self._columns: dict[str, int] = {}  # {adapter: its place in `folded`}

    @cached_property
    def layout(self) -> Layout:
        """The layout of the base's linears. Raises InputError if the base cannot be computed from tokens alone."""
        try:
            return layout_of(self.base)
        except Exception as error:  # whatever a model raises that is given nothing but tokens
            raise InputError(
                f"base '{self.source}': it cannot be computed from tokens alone ({one_line(error)}); give a decoder"
            ) from None

    def columns(self, name: str, adapters: list[str]) -> list[int]:
        """Add a policy's adapters, and return their columns in the gate. If one of them fails, none is added.

        Args:
            name: the policy.
            adapters: the paths or hub ids of its adapters.

        Raises:
            InputError: an adapter was trained from another base, or cannot be stacked.
            Unfoldable: an adapter needs the general path.
        """
        loras = {a: self.folded[self._columns[a]] if a in self._columns else read_lora(a) for a in adapters}
        for place, (adapter, lora) in enumerate(loras.items()):
            self._warn_of_another_base(name, lora)
            if lora.init and place:
                raise InputError(
                    f"policy '{name}': adapter '{adapter}' was trained on a base that init_lora_weights '{lora.init}' "
                    "had changed, and cannot be stacked on others; convert it with peft's "
                    "save_pretrained(path_initial_model_for_weight_conversion=...)"
                )
        fitted = {a: fit_to_fold(self.base, lora, self.layout) for a, lora in loras.items() if a not in self._columns}
        for adapter, (lora, notes) in fitted.items():
            for words in notes:
                self.note(f"policy '{name}': {adapter}: {words}")
            self._columns[adapter] = len(self.folded)
            self.folded.append(lora)
        return [self._columns[adapter] for adapter in adapters]

    def _warn_of_another_base(self, name: str, lora: Lora) -> None:
        """Note an adapter that names another base: it may still fit this one's shapes, and would then be wrong."""
        if lora.source in self._columns or not lora.base:
            return
        named = Path(lora.source) / lora.base
        same = named.exists() and Path(self.source).exists() and named.resolve() == Path(self.source).resolve()
        if not same and not names_base(lora.base, self.source):
            self.note(
                f"policy '{name}': its adapter names '{lora.base}' as its base and is put on '{self.source}'; right "
                "only if those are the same"
            )


def names_base(named: str, base: str) -> bool:
    """Return whether `named` is the base's source, or the name of the base's GGUF file begins with its name."""
    if named == base:
        return True
    short, long = (Path(source.removesuffix(".gguf")).name.lower() for source in (named, base))
    return is_gguf(base) and bool(short) and long.startswith(short)
