"""A target on the radar: the weights that the server finds, against a grid of all weights, and what it says of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from types import SimpleNamespace

import gradio as gr
import numpy as np
import pytest

from app.services import bank_service
from app.services.bank_service import Aimed, Expected
from app.ui.mixture_controls import MixtureControls
from app.ui.radar_target import answer_target, target_sentence
from engine import Engine, Sampling
from engine.bank.estimate import Bank
from tests.conftest import Tiny

NAMES = ["plain", "stabilized", "narrow"]  # the tiny policies
UNIFORM = dict.fromkeys(NAMES, 0.5)
with gr.Blocks():
    CONTROLS = MixtureControls(
        {name: gr.Slider(0, 1) for name in NAMES}, gr.Textbox(), gr.Dropdown(), gr.Slider(0, 4), gr.Slider(-5, 5)
    )


@pytest.fixture(scope="module")
def desk(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """Of the tiny policies, with a bank of three prompts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(bank_service, "SAMPLING", Sampling(max_new_tokens=6, temperature=1.0))
        patch.setattr(bank_service, "RESPONSES", 60)
        (tiny.folder / "prompts.txt").write_text("mix\nmove the faders\nthe quick brown fox")
        with Engine.from_config(tiny.write("with-prompts.yaml", prompts="prompts.txt")) as engine:
            expected = Expected(engine)

            async def sample() -> None:
                async for _ in expected.sample("me"):
                    pass

            asyncio.run(sample())
            yield SimpleNamespace(expected=expected)


def bank_of(desk: SimpleNamespace) -> Bank:
    bank = desk.expected.bank
    assert bank is not None
    return bank


def ask(desk: SimpleNamespace, **changes: object) -> dict:
    mixture = {"faders": UNIFORM, "channels": {}, "rule": "geometric", "gain": 1, "exponent": 1}
    mixture |= {key: changes.pop(key) for key in list(changes) if key in mixture}
    asked = {"mixture": mixture, "goal": {"plain": 0.5}, "quick": False, **changes}
    return answer_target(desk, CONTROLS, json.loads(json.dumps(asked)))


def rewards(desk: SimpleNamespace, weights: np.ndarray, gain: float = 1.0) -> np.ndarray:
    """Standard values, by counting every response of the bank: Σ w r / Σ w a prompt."""
    bank = bank_of(desk)
    assert bank.token_level and bank.local is not None, "the desk decodes token by token"
    w = np.exp(bank.log_base + gain * (bank.log_ratios * weights).sum(-1) - bank.local(gain * weights))
    mean = ((w[..., None] * bank.rewards).sum(1) / w.sum(1)[:, None]).mean(0)
    return (mean - desk.expected.centre) / desk.expected.scale


def grid(steps: int = 40) -> np.ndarray:
    return np.array([(a, b, steps - a - b) for a in range(steps + 1) for b in range(steps + 1 - a)]) / steps


def weights_of(faders: dict[str, float]) -> np.ndarray:
    return np.array([faders[name] for name in NAMES]) / sum(faders.values())


@pytest.mark.parametrize("quick", [True, False])
@pytest.mark.parametrize("gain", [1.0, 1.4])
@pytest.mark.parametrize("more", [0.05, -0.1, 5.0])
def test_the_nearest_of_all_weights(desk: SimpleNamespace, quick: bool, gain: float, more: float) -> None:
    """What was not dragged is to stay; near, and far beyond reach."""
    before = rewards(desk, np.full(3, 1 / 3), gain)
    wanted = before + np.array([more, 0])
    found = ask(desk, goal={"plain": wanted[0]}, gain=gain, quick=quick)
    reached = rewards(desk, weights_of(found["faders"]), gain)
    losses = [((rewards(desk, point, gain) - wanted) ** 2).sum() for point in grid()]
    # Faders are read to a hundredth.
    assert ((reached - wanted) ** 2).sum() <= min(losses) + 0.01 * (1 + abs(more))
    assert max(found["faders"].values()) == 1
    assert ("Beyond reach" in found["said"]) == (more == 5.0), found["said"]


def test_what_is_locked_or_silent_stays_and_the_others_make_up_for_it(desk: SimpleNamespace) -> None:
    locked = {"lock": {"stabilized": 0.4}}
    wanted = rewards(desk, np.array([0.3, 0.4, 0.3])) + np.array([0.3, 0])
    found = ask(desk, channels=locked, goal={"plain": wanted[0]})
    assert set(found["faders"]) == {"plain", "narrow"}
    free = np.array([found["faders"]["plain"], found["faders"]["narrow"]])
    at = np.insert(0.6 * free / free.sum(), 1, 0.4)
    losses = [((rewards(desk, np.array([a, 0.4, 0.6 - a])) - wanted) ** 2).sum() for a in np.linspace(0, 0.6, 61)]
    assert ((rewards(desk, at) - wanted) ** 2).sum() <= min(losses) + 0.005
    silent = ask(desk, channels={"mute": ["plain"]})
    assert set(silent["faders"]) == {"stabilized", "narrow"}
    nothing = ask(desk, channels={"mute": ["plain"], "lock": {"narrow": 0.4}})
    assert nothing["faders"] is None and "release a Lock, Solo or Mute" in nothing["said"]


def test_it_says_what_the_bank_says(desk: SimpleNamespace) -> None:
    before, bank = rewards(desk, np.full(3, 1 / 3)), bank_of(desk)
    found = ask(desk, goal={"plain": before[0] + 5})
    # The sentence is of the weights found, the faders of these to a hundredth.
    told = float(found["said"].split("plain ")[1].split(" ")[0].replace("−", "-"))
    assert told == pytest.approx(rewards(desk, weights_of(found["faders"]))[0] - before[0], abs=0.02)
    assert "of +5.00σ asked" in found["said"]
    share = float(bank.estimate(weights_of(found["faders"])).ess_fraction)
    assert float(found["said"].split("%")[0].split(" ")[-1]) == pytest.approx(100 * share, abs=1.5)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"goal": {"kind": 1}}, "no reward is for &#x27;kind&#x27;"),
        ({"goal": {}}, "reload the page"),
        ({"goal": {"plain": float("nan")}}, "reload the page"),
        ({"goal": {"plain": "<b>"}}, "reload the page"),
        ({"faders": {"strange": 1}}, "it needs the policy “strange”"),
        ({"faders": {**UNIFORM, "plain": 2}}, "reload the page"),
        ({"gain": 1e9}, "gain is 1e+09; this desk takes 0 to 4"),
        ({"channels": "["}, "reload the page"),
        ({"faders": dict.fromkeys(NAMES, 0)}, "All faders are at zero"),
    ],
)
def test_nonsense_moves_nothing(desk: SimpleNamespace, changes: dict, said: str) -> None:
    found = ask(desk, **changes)
    assert found["faders"] is None
    assert said in found["said"]


def test_without_a_bank_it_says_so(desk: SimpleNamespace) -> None:
    empty = SimpleNamespace(expected=Expected(desk.expected.engine))
    assert "no bank yet" in ask(empty)["said"]


def aimed(gained: dict[str, float], asked: dict[str, float], reliable: bool = True) -> Aimed:
    return Aimed({"a": 1.0}, ["a"], asked, gained, dict.fromkeys(gained, 0.03), 0.4, reliable)


def test_the_sentence() -> None:
    far = target_sentence(aimed({"helpful": 0.4, "harmless": -0.2, "humorous": 0.04}, {"helpful": 0.6}))
    assert far == (
        "Beyond reach; nearest to your target: helpful +0.40 ± 0.03 of +0.60σ asked; with it harmless −0.20. "
        "40% of the bank counts."
    )
    near = target_sentence(aimed({"helpful": 0.56, "harmless": -0.001}, {"helpful": 0.6, "harmless": 0.0}))
    assert near.startswith(
        "Target reached: helpful +0.56 ± 0.03 of +0.60σ asked, harmless +0.00 ± 0.03 of +0.00σ asked."
    )
    guess = target_sentence(aimed({"helpful": 0.6}, {"helpful": 0.6}, reliable=False))
    assert "But a guess, only 40% of the bank counts: sample more in Explore." in guess
