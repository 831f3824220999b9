"""dtype auto: what is stored, where the processor multiplies that; else float32."""

from __future__ import annotations

import shutil

import pytest
import torch
from transformers import LlamaForCausalLM

from engine.config import load_config
from engine.models import loading
from engine.models.policy_set import PolicySet
from tests.conftest import Tiny


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("stored", ["float32", "bfloat16", "float16"])
def test_auto_on_a_cpu(tiny: Tiny, native: bool, stored: str, monkeypatch: pytest.MonkeyPatch) -> None:
    base = tiny.folder / f"stored-{stored}"
    shutil.copytree(tiny.base, base, dirs_exist_ok=True)
    LlamaForCausalLM.from_pretrained(tiny.base, dtype=getattr(torch, stored)).save_pretrained(base)
    monkeypatch.setattr(loading, "multiplies_bfloat16", lambda: native)
    file = tiny.write("auto.yaml", base=str(base), dtype="auto", device="cpu", rewards=[])
    (model,) = PolicySet(load_config(file)).models
    expected = torch.bfloat16 if native and stored == "bfloat16" else torch.float32
    assert {parameter.dtype for parameter in model.parameters() if parameter.numel()} == {expected}


def test_what_is_asked_for_is_taken(tiny: Tiny) -> None:
    (model,) = PolicySet(load_config(tiny.write("asked.yaml", dtype="bfloat16", device="cpu"))).models
    assert next(model.parameters()).dtype == torch.bfloat16
