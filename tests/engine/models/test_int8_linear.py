"""`dtype: int8`: the product of rounded weights to many digits, adapters exact, and a quality that is stated."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from engine import Engine, InputError, Sampling
from engine.config import DEMO, load_config
from engine.models import int8_linear
from engine.models.int8_linear import Int8Linear, check_int8
from engine.models.loading import pick_dtype
from engine.models.policy_set import PolicySet
from tests.conftest import Tiny


def can_int8() -> bool:
    try:
        check_int8()
    except InputError:
        return False
    return True


needs_int8 = pytest.mark.skipif(not can_int8(), reason="this CPU or this torch cannot")


def rounded(linear: nn.Linear) -> torch.Tensor:
    """Return the weight as 127 steps to either side of zero, in double precision."""
    weight = linear.weight.detach().double()
    scale = weight.abs().amax(1, keepdim=True) / 127
    return (weight / scale).round() * scale


@needs_int8
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1, 50), (5, 50), (3, 7, 50), (300, 50), (4, 1, 2000), (2, 0, 50)])
@torch.inference_mode()
def test_the_product_of_the_rounded_weights(bias: bool, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(shape[-1], 33, bias=bias)
    x = torch.randn(shape) * torch.logspace(-3, 3, shape[-1])  # some inputs are far larger than others
    found = Int8Linear(linear)(x)
    wanted = x.double() @ rounded(linear).T + (linear.bias.double() if bias else 0.0)
    assert found.shape == (*shape[:-1], 33)
    # An input is off by up to half a step of its row, 0.29 steps in the mean; with 8 bits a step is 257 times as large.
    steps = x.double().abs().amax(-1) / int8_linear.LARGEST
    assert (found - wanted).norm() <= 0.5 * steps.norm() * rounded(linear).norm() + 1e-6 * wanted.norm()


@needs_int8
@torch.inference_mode()
def test_a_row_does_not_depend_on_the_others() -> None:
    linear = Int8Linear(nn.Linear(100, 30))
    x = torch.randn(64, 100)
    every = linear(x)
    for count in (1, 2, 3, 16):
        assert torch.equal(linear(x[:count]), every[:count])
    assert torch.equal(linear(x[40:41]), every[40:41])


@needs_int8
@torch.inference_mode()
def test_zeros_and_what_is_no_number() -> None:
    linear = nn.Linear(20, 6)
    linear.weight[2] = 0.0
    packed = Int8Linear(linear)
    assert torch.equal(packed(torch.zeros(2, 20)), linear.bias.expand(2, -1))
    assert packed(torch.randn(3, 20))[:, 2].tolist() == pytest.approx([linear.bias[2].item()] * 3)
    broken = torch.randn(2, 20)
    broken[1, 4] = torch.nan
    assert packed(broken)[1].isnan().all() and packed(broken)[0].isfinite().all()


def in_int8(source: Path, folder: Path) -> Path:
    """Write a configuration with `dtype: int8`, its paths made absolute."""
    settings = yaml.safe_load(source.read_text())
    settings["dtype"] = "int8"
    for owner in (settings, *settings["policies"]):
        for key in ("base", "adapter", "model"):
            if key in owner:
                owner[key] = str((source.parent / owner[key]).resolve())
    for key in ("rewards", "prompts"):
        settings.pop(key, None)
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump(settings))
    return file


@needs_int8
@torch.inference_mode()
def test_adapters_are_exact(tiny: Tiny, tmp_path: Path) -> None:
    # What an adapter adds to a linear of the base is the same with both.
    plain, eight = (PolicySet(load_config(file)) for file in (tiny.config, in_int8(tiny.config, tmp_path)))
    x = torch.randn(2, 1, plain.models[0].config.hidden_size)
    added = []
    for policy_set in (plain, eight):
        group = policy_set.models[0].model.layers[0].self_attn.q_proj.group
        policy_set.set_gates(0, [policy_set.policies[1], policy_set.policies[2]])
        with_adapters = group.joint(x).clone()
        policy_set.set_gates(0, [policy_set.policies[0]] * 2)
        added.append(with_adapters - group.joint(x))
    assert added[0].abs().max() > 0.01
    assert torch.allclose(*added, atol=1e-5)


@needs_int8
def test_the_bundled_policies_keep_their_quality(tmp_path: Path) -> None:
    prompts = ["How do I boil an egg?", "Tell me about the sea.", "My friend is sad. What should I say?"]
    with Engine.from_config(DEMO) as plain, Engine.from_config(in_int8(DEMO, tmp_path)) as eight:
        totals, count = [0.0, 0.0], 0
        for prompt in prompts:
            request = plain.submit(prompt, plain.mixture(), Sampling(max_new_tokens=60), 3, rewards=False)
            tokens = request.completion().tokens
            found = [engine.token_log_probs(prompt, tokens) for engine in (plain, eight)]
            for name, values in found[0].items():
                assert max(abs(a - b) for a, b in zip(values, found[1][name], strict=True)) < 0.3
                totals = [total - sum(one[name]) for total, one in zip(totals, found, strict=True)]
                count += len(values)
        before, after = (math.exp(total / count) for total in totals)
        assert after == pytest.approx(before, rel=0.01)
        # And they are decoded: the batch says what a pass over the whole text says.
        said = eight.submit(prompts[0], eight.mixture(), Sampling(max_new_tokens=20), 1, rewards=False).completion()
        wanted = eight.token_log_probs(prompts[0], said.tokens)
        for name in wanted:
            assert [step[name] for step in said.trace] == pytest.approx(wanted[name], abs=0.01)


def test_where_it_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="int8 is for a CPU"):
        pick_dtype("int8", torch.device("cuda"))
    check_int8.cache_clear()
    monkeypatch.setattr(int8_linear, "Int8Linear", lambda linear: lambda x: torch.full((3, 32), 60.0))
    with pytest.raises(InputError, match="multiplies 8-bit integers exactly"):
        pick_dtype("int8", torch.device("cpu"))
    check_int8.cache_clear()
